"""Systems other than the tested one: every module can be imported where POSIX is not."""

import importlib
import os
import pkgutil
import signal
import sys
from types import ModuleType

import pytest
from click import Context
from click.testing import CliRunner

from tests.support.forks import Fork

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
NAMES = {
    os: """fork forkpty getegid geteuid getgid getpgid getpgrp getuid killpg mkfifo nice
        posix_fallocate sched_getaffinity setpgid setsid statvfs sysconf uname wait3 wait4 waitid
        P_PID WNOHANG WUNTRACED""",
    signal: """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1
        SIGUSR2 SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm pause pthread_kill pthread_sigmask
        setitimer sigpending sigwait sigtimedwait""",
}


def imported():
    """Import each module of cembench; return how many there are, and the errors."""
    package, failed = importlib.import_module("cembench"), {}
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, "cembench.")]
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)
    return len(modules), failed


def imported_elsewhere():
    """Import each module once more, without what POSIX has, and ask each command for its help."""
    sys.modules["ray"] = ModuleType("ray")  # spares its import
    assert imported()[1] == {}  # what cembench is made of is there from now on
    for name in [name for name in sys.modules if name.partition(".")[0] == "cembench"]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(MODULES))
    sys.platform = "win32"
    for module, words in NAMES.items():
        for word in words.split():
            vars(module).pop(word, None)
    modules, failed = imported()
    main = importlib.import_module("cembench.cli").main
    words = main.list_commands(Context(main))
    answers = {word: CliRunner().invoke(main, [word, "--help"]).exit_code for word in words}
    return modules, failed, answers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system shows it by itself")
def test_no_module_needs_posix_to_be_imported(tmp_path):
    modules, failed, answers = Fork(imported_elsewhere, tmp_path / "result").result()
    assert failed == {} and modules > 200 and {*answers.values()} == {0}
