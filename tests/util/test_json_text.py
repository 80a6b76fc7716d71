import json
import math

import numpy as np

from cembench.util.display.json_text import to_json


def test_json_has_finite_numbers_alone():
    values = {"a": [math.nan, math.inf, np.float32(0.5), np.int64(3)], "b": (True, None, "é")}
    assert json.loads(to_json(values)) == {"a": [None, None, 0.5, 3], "b": [True, None, "é"]}
    assert to_json(values).isascii()
