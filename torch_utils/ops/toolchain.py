# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Compilers for the operations: where they are, what they are told, and what they say when they fail.

The few flags that a library of kernels needs are written here rather than taken from
`torch.utils.cpp_extension`: that module needs setuptools in several releases of torch, looks for CUDA only in
CUDA builds of torch, and its `load` waits for ever for the lock file of a build that was killed.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from ggdr.torch_utils.child_python import module_command

TORCH_DIR = Path(torch.__file__).parent
CPP_FLAGS = (
    *("-std=c++17", "-O3", "-fPIC"),
    # What of -ffast-math leaves NaN and infinity alone.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
NVCC_FLAGS = (
    *("-std=c++17", "-O3", "-Xcompiler", "-fPIC", "--expt-relaxed-constexpr"),
    # As torch compiles its own kernels: conversions of half types are never implicit.
    *("-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__"),
    *("-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__"),
)
INSTALL_CXX = (
    "install one: apt install g++, dnf install gcc-c++, conda install -c conda-forge cxx-compiler, "
    "or xcode-select --install on macOS"
)
# The first line of a compiler's output that says what is wrong.
ERROR_LINE = re.compile(r"\berror\b.*:|\berror:|\bfatal\b|undefined reference|cannot find -l|Killed|Segmentation")


class BuildError(RuntimeError):
    """There is no library of compiled operations for a kind of device.

    Attributes:
        device_type: "cpu" or "cuda".
        cause:       what is wrong.
        detail:      the compiler's first error line, or "".
        remedy:      what to do about it.
    """

    def __init__(self, device_type: str, cause: str, *, detail: str = "", remedy: str) -> None:
        self.device_type, self.cause, self.detail, self.remedy = device_type, cause, detail, remedy
        super().__init__(
            f"no compiled {device_type.upper()} operations: {self.reason}. To mend it, {remedy}. "
            f"GGDR_OPS=reference or --ops reference goes on without them, {self.cost}"
        )

    @property
    def reason(self) -> str:
        """Cause and compiler's error line."""
        return f"{self.cause}: {self.detail}" if self.detail else self.cause

    @property
    def cost(self) -> str:
        """What it costs to go on with the reference."""
        return "more slowly and with more memory"


class MissingTool(BuildError):
    """A compiler or ninja is not installed."""


@dataclass(frozen=True)
class Toolchain:
    """How the sources for one kind of device are compiled and linked."""

    device_type: str  # "cpu" or "cuda"
    ninja: tuple[str, ...]
    compile: tuple[str, ...]  # followed by: -c SOURCE -o OBJECT
    link: tuple[str, ...]  # followed by: OBJECTS -o LIBRARY, and then `libraries`
    libraries: tuple[str, ...]
    identity: tuple[str, ...]  # what of compilers, flags and machine decides the machine code

    def write_ninja_file(self, path: Path, sources: Sequence[Path]) -> None:
        """The build of ops.so, with an object file NAME.o for each source NAME."""
        parts = ("compile", "link", "libraries")
        command = {part: shlex.join(getattr(self, part)).replace("$", "$$") for part in parts}
        inputs = [re.sub("([ :$])", r"$\1", str(source)) for source in sources]
        objects = [f"{source.stem}.o" for source in sources]
        lines = [
            "rule compile",
            f"  command = {command['compile']} -c $in -o $out",
            "rule link",
            f"  command = {command['link']} $in -o $out {command['libraries']}",
            *(f"build {output}: compile {source}" for output, source in zip(objects, inputs, strict=True)),
            f"build ops.so: link {' '.join(objects)}",
        ]
        path.write_text("\n".join(lines) + "\n")

    def run_ninja(self, folder: Path, *targets: str, log: Path) -> None:
        """Makes targets of the build.ninja in a folder; MAX_JOBS bounds how many compilers run at once.

        Raises:
            BuildError: with the first error line of the compiler; all that it said is in `log`.
        """
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        done = subprocess.run(
            [*self.ninja, *jobs, *targets],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},  # messages in English, for ERROR_LINE
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode == 0:
            return
        log.write_text(done.stdout)
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        detail = next((line for line in lines if ERROR_LINE.search(line)), lines[-1] if lines else "")
        remedy = f"read all that the compiler said in {log}"
        if "unsupported GNU version" in done.stdout:
            remedy = "install a C++ compiler that nvcc knows and name it in CXX, as in CXX=g++-12"
        raise BuildError(self.device_type, "compiling failed", detail=detail, remedy=remedy)


def cpu_toolchain() -> Toolchain:
    """For this processor; raises MissingTool where there is no C++ compiler or no ninja."""
    cxx, ninja = find_cxx("cpu"), find_ninja("cpu")
    cxx_version = version_of(cxx)
    # The library runs where it is built.
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    flags = [*CPP_FLAGS, native, _abi_flag()]
    libraries = [f"-L{TORCH_DIR / 'lib'}", "-lc10", "-ltorch_cpu"]
    if sys.platform != "darwin":  # Apple's compiler has no OpenMP: one thread there
        flags.append("-fopenmp")  # at::parallel_for, which is written out in a header
        # torch's own OpenMP library, as a second one brings a second set of threads; clang's calls need clang's.
        bundled = [] if "clang" in cxx_version else sorted((TORCH_DIR / "lib").glob("libgomp*.so*"))
        libraries.append(str(bundled[0]) if bundled else "-fopenmp")
    return Toolchain(
        device_type="cpu",
        ninja=ninja,
        compile=(*cxx, *flags, "-isystem", str(TORCH_DIR / "include")),
        link=(*cxx, "-shared", *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [])),
        libraries=tuple(libraries),
        identity=(*_torch_identity(), cxx_version, *flags, platform.machine(), cpu_features()),
    )


def cuda_toolchain(archs: Sequence[str]) -> Toolchain:
    """For GPU architectures such as "9.0"; for one that is newer than nvcc, in a form that the driver compiles.

    Raises:
        MissingTool: no nvcc, C++ compiler or ninja.
        BuildError:  nvcc is not of the CUDA version that torch was built with, or no longer knows an architecture.
    """
    built_with = torch.version.cuda
    nvcc = find_nvcc()
    if nvcc is None:
        cause = "no CUDA compiler (looked for nvcc in $CUDA_HOME, among Python's packages, on PATH, in /usr/local/cuda)"
        raise MissingTool("cuda", cause, remedy=_install_nvcc(built_with))
    cxx, ninja = find_cxx("cuda"), find_ninja("cuda")
    nvcc_version = version_of([nvcc])
    match = re.search(r"release (\d+)\.(\d+)", nvcc_version)
    if match is None or built_with is None or match[1] != built_with.split(".")[0]:
        found = f"CUDA {match[1]}.{match[2]}" if match else "of an unknown version"
        cause = f"{nvcc} is {found}, but torch {torch.__version__} was built with CUDA {built_with}"
        remedy = "make both of the same major version; CUDA_HOME says which nvcc is taken"
        raise BuildError("cuda", cause, remedy=remedy)
    # A compiler of several words (ccache g++) is none for nvcc, which then takes g++ from PATH.
    host = ["-ccbin", cxx[0]] if len(cxx) == 1 else []
    flags = [*NVCC_FLAGS, *_code_flags(nvcc, archs), _abi_flag()]
    return Toolchain(
        device_type="cuda",
        ninja=ninja,
        compile=(nvcc, *host, *flags, "-isystem", str(TORCH_DIR / "include")),
        link=(*cxx, "-shared"),  # without the CUDA runtime: that is torch's own, loaded for all libraries to see
        libraries=(f"-L{TORCH_DIR / 'lib'}", "-lc10", "-lc10_cuda", "-ltorch_cpu", "-ltorch_cuda"),
        identity=(*_torch_identity(), nvcc_version, version_of(cxx), *flags, platform.machine()),
    )


def _code_flags(nvcc: str, archs: Sequence[str]) -> list[str]:
    """What nvcc is to generate: machine code, or for GPUs that it does not know, its newest PTX that they can run."""
    listed = re.findall(r"\bcompute_(\d+)\b", output_of([nvcc, "--list-gpu-arch"]))
    known = sorted({int(number) for number in listed})
    flags = []
    for arch in archs:
        number = int(arch.replace(".", ""))
        if number in known or not known:
            flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            continue
        older = [other for other in known if other < number]
        if not older:
            oldest = f"{known[0] // 10}.{known[0] % 10}"
            cause = f"{nvcc} compiles for compute capability {oldest} and newer, but a GPU here has {arch}"
            remedy = (
                "install a torch for an older CUDA, and the nvcc of that, or leave the GPU out by CUDA_VISIBLE_DEVICES"
            )
            raise BuildError("cuda", cause, remedy=remedy)
        flags.append(f"-gencode=arch=compute_{older[-1]},code=compute_{older[-1]}")
    return list(dict.fromkeys(flags))


def find_cxx(device_type: str) -> tuple[str, ...]:
    """The command of the C++ compiler: $CXX, or else the first of g++, c++ and clang++."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for name in chosen[:1] or ["g++", "c++", "clang++"]:
        if path := shutil.which(name):
            return (path, *chosen[1:])
    looked_for = f"CXX is {shlex.join(chosen)}, which is not there" if chosen else "looked for g++, c++ and clang++"
    raise MissingTool(device_type, f"no C++ compiler ({looked_for})", remedy=INSTALL_CXX)


def find_ninja(device_type: str) -> tuple[str, ...]:
    """The command of ninja: beside this Python, whose folder need not be on PATH, or on PATH."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    if ninja := shutil.which("ninja", path=path):
        return (ninja,)
    if find_spec("ninja") is not None:
        return tuple(module_command("ninja"))
    raise MissingTool(device_type, "no ninja", remedy="pip install ninja")


def find_nvcc() -> str | None:
    """The path of nvcc: in $CUDA_HOME or $CUDA_PATH, among Python's packages, on PATH, or in /usr/local/cuda."""
    homes = [home for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")) if home]
    nvidia = find_spec("nvidia")  # where `pip install cuda-toolkit[nvcc]` puts it, beside torch's libraries
    packages = [
        str(path)
        for folder in (nvidia.submodule_search_locations if nvidia else ()) or ()
        for path in sorted(Path(folder).glob("cu*/bin"))
    ]
    folders = [*(f"{home}/bin" for home in homes), *packages, os.environ.get("PATH", os.defpath), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(folders))


def _install_nvcc(version: str | None) -> str:
    """What to do where there is no CUDA compiler."""
    ways = ["conda install -c nvidia cuda-nvcc", "the CUDA toolkit from developer.nvidia.com/cuda-downloads"]
    if version and int(version.split(".")[0]) >= 13:  # older ones have no nvcc among their packages for Python
        ways.insert(0, f"pip install 'cuda-toolkit[nvcc,cccl,cudart]=={version}.*'")
    return f"install that of CUDA {version}: {', or '.join(ways)}; CUDA_HOME says where it is"


def version_of(command: Sequence[str]) -> str:
    """What `command --version` prints, in one line; "" if it cannot be run."""
    return output_of([*command, "--version"])


def cpu_name() -> str:
    """What the maker calls this processor."""
    if sys.platform == "darwin":
        return output_of(["sysctl", "-n", "machdep.cpu.brand_string"])
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """The instruction sets of this processor, which the CPU library is built for; on a Mac its name."""
    return cpu_name() if sys.platform == "darwin" else _cpuinfo("flags", "Features")


def _cpuinfo(*keys: str) -> str:
    """The first entry of Linux' list of processors that has one of these keys; "" if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() in keys), "")


def _abi_flag() -> str:
    return f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"


def _torch_identity() -> tuple[str, ...]:
    return torch.__version__, str(torch.version.git_version), str(torch.version.cuda)


def output_of(command: Sequence[str]) -> str:
    """What a command prints, in one line; "" if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""
