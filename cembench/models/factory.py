"""Factory: any network that a user's function or class returns."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from cembench.models import ModelSettings, Shape
from cembench.util.errors import CembenchError, ModelError
from cembench.util.lazy import lazy_imports
from cembench.util.registry import is_trusted, load_plugins
from cembench.util.settings import nearest

with lazy_imports():
    from torch import nn


class Factory(ModelSettings):
    """The network that a callable returns, such as `mypackage.nets:resnet18`.

    A checkpoint must not run code that the user did not ask for, so the user has to name the module
    too: with `--plugin`, `cembench.add_plugin`, or by an installed plugin. The callable is a
    function, class or method that this module defines itself, or the package around it if that was
    named: what it imports from elsewhere is never called.

    Attributes:
        target: import path of the module, a colon, and the name in it.
        args: keyword arguments of the callable.
    """

    name: ClassVar[str] = "factory"
    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    args: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """The name of the callable."""
        return self.target.partition(":")[2]

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Call the factory; shape and classes are not passed on, except by `args`.

        Raises:
            CembenchError: when the user did not name its module.
            ModelError: when it is not found, is not defined there, raises, or returns no network.
        """
        factory = self._found()
        try:
            net = factory(**self.args)
        except CembenchError:
            raise
        except Exception as error:
            raise ModelError(f"factory {self.target} raised {error!r}") from error
        if not isinstance(net, nn.Module):
            kind = type(net).__name__
            raise ModelError(f"factory {self.target} returned {kind}, not a torch.nn.Module")
        return net

    def _found(self) -> Callable[..., Any]:
        module, _, path = self.target.partition(":")
        if not is_trusted(module):
            raise CembenchError(
                f"the network is built by {self.target}, which is code outside cembench; "
                f"if you trust it, add --plugin {module}"
            )
        load_plugins()
        try:
            found: Any = importlib.import_module(module)
        except Exception as error:
            raise ModelError(f"factory {self.target} cannot be imported: {error!r}") from error
        for part in path.split("."):
            if not hasattr(found, part):
                public = [name for name in vars(found) if not name.startswith("_")]
                raise ModelError(f"{module} has no '{part}'; {nearest(part, public)}")
            within, found = found, getattr(found, part)
            if not _defined(found) or not (inspect.ismodule(within) or inspect.isclass(within)):
                raise ModelError(
                    f"factory {self.target}: '{part}' is a {type(found).__name__}, not a function "
                    f"or class that {module} defines itself; name one of those"
                )
        factory: Callable[..., Any] = found
        return factory


def _defined(found: Any) -> bool:
    """Return whether this is a function, method or class that a trusted module defines.

    Whatever a module imports could be called otherwise: `mine:os.system`, once `mine` is trusted.
    """
    kinds = inspect.isfunction(found) or inspect.ismethod(found) or inspect.isclass(found)
    return kinds and is_trusted(str(getattr(found, "__module__", "")))
