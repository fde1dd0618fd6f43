# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A step of `ggdr accept` in its own process; its words are PID, REQUEST.json and RESULT.json.

The process ends with the one that started it, of which PID is the number.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

from ggdr.scripts.accepting.step import FAILED, PASSED, SKIPPED, Finding, Place, StepFailed, StepSkipped, result_of
from ggdr.scripts.studies.child_process import end_with
from ggdr.torch_utils.atomic_write import atomic_write


def run_request(request: dict[str, Any]) -> dict[str, Any]:
    """Calls the step's function; `state`, `reason`, `figure` and `details` of the result.

    Args:
        request: `function`, `arguments`, and the fields of its Place.
    """
    module, _, name = request["function"].partition(":")
    place = Place(request["device"], Path(request["folder"]), Path(request["shared"]))
    reason, finding = "", Finding("")
    try:
        finding = getattr(importlib.import_module(module), name)(place, **request["arguments"])
        state, reason = (FAILED, "; ".join(finding.faults)) if finding.faults else (PASSED, "")
    except StepSkipped as skipped:
        state, reason = SKIPPED, str(skipped)
    except StepFailed as failed:
        state, reason = FAILED, str(failed)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        state, reason = FAILED, f"{type(error).__name__}: {first}"
    return _plain(result_of(state, reason, finding))


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite as text."""
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    end_with(int(sys.argv[1]))
    result = run_request(json.loads(Path(sys.argv[2]).read_bytes()))
    with atomic_write(sys.argv[3]) as file:
        file.write(json.dumps(result).encode())


if __name__ == "__main__":
    main()
