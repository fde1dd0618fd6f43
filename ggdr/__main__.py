# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr` and `python -m ggdr`: the command, or one line that says how to install what it needs."""

from __future__ import annotations

import os
import sys

# What the command imports from others, and the plugin's own needs: a missing one of these is not a fault of this code.
PACKAGES = {
    "PIL",
    "click",
    "filelock",
    "imageio",
    "imageio_ffmpeg",
    "matplotlib",
    "numpy",
    "plotly",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "yaml",
}


def main() -> None:
    """Runs the command line; exit code 2 where its packages are not installed."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # By itself GNU's OpenMP spins while threads wait: beside other programs a step then takes many times as long.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text: Python would end in a traceback where it shows one.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from ggdr.scripts.cli import main as command
        from ggdr.torch_utils.child_python import keep_current_folder_out

        keep_current_folder_out()
        command()
    except ModuleNotFoundError as error:
        if error.name == "ggdr.scripts":
            fault, remedy = _without_command(os.path.dirname(os.path.abspath(__file__)))
        elif error.name in PACKAGES:
            fault, remedy = f"the command needs {error.name}, which is not installed here", _how_to_install()
        else:
            raise
        print(f"ggdr: {fault}; {remedy}", file=sys.stderr)
        sys.exit(2)


def _without_command(package: str) -> tuple[str, str]:
    """What is wrong where the folder of this package was imported without the rest of the project, and what to do."""
    from importlib.metadata import PackageNotFoundError, distribution

    install = "type: pip install -e '.[app]'"
    project = os.path.dirname(package)
    # Others have scripts/ too, where they copied the plugin to.
    if not all(os.path.exists(os.path.join(project, name)) for name in ("pyproject.toml", "scripts", "stylegan2")):
        return f"{package} is the plugin alone, and holds no command", f"in a copy of the whole project, {install}"
    try:
        distribution("ggdr")
    except PackageNotFoundError:
        return f"the project in {project} is not installed", f"there, {install}"
    return f"Python took {package} in place of the installed ggdr", f"run it in another folder, or here {install}"


def _how_to_install() -> str:
    """What to type for the extra `app`: with the folder or address that this installation came from, if it is known."""
    import json
    import shlex
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(distribution("ggdr").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    url = origin.get("url", "")
    folder = url2pathname(urlsplit(url).path)
    if "dir_info" in origin and os.path.isdir(folder):
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"type: pip install {editable}{shlex.quote(folder + '[app]')}"
    if vcs := origin.get("vcs_info"):
        revision = f"@{vcs['requested_revision']}" if "requested_revision" in vcs else ""
        url = f"{vcs['vcs']}+{url}{revision}"
    if vcs or "archive_info" in origin:
        return f"type: pip install {shlex.quote(f'ggdr[app] @ {url}')}"
    return "in a copy of the project, type: pip install -e '.[app]'"


def _current_folder() -> str:
    """Its path; "" where it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    # `python -m` looks for modules in the current folder first: files there are not ours, nor what we import.
    if sys.path[0] in ("", _current_folder()):
        del sys.path[0]
    main()
