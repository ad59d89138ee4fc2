"""Build of the compiled kernels; everything else is declared in setup.cfg.

Two shared libraries are built from hgmm/kernels/csrc: one for any processor of the platform and, on x86-64, one for
AVX2 and FMA. They use neither Python's nor torch's headers and link to neither, so one wheel serves every version of
both.

HGMM_REQUIRE_NATIVE=1 makes a failed build an error; without it the package installs and runs on the reference.
HGMM_SANITIZE=1 builds with the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCES = sorted(map(str, Path("hgmm/kernels/csrc").glob("*.cpp")))
HEADERS = sorted(map(str, Path("hgmm/kernels/csrc").glob("*.h")))
FLAGS = ["-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-g0"]
ISA_FLAGS = {"portable": [], "avx2": ["-mavx2", "-mfma", "-mf16c"]}
SANITIZER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]


def required() -> bool:
    return os.environ.get("HGMM_REQUIRE_NATIVE") == "1"


def isas() -> list[str]:
    return ["portable", "avx2"] if platform.machine().lower() in ("x86_64", "amd64") else ["portable"]


def extension(isa: str) -> Extension:
    sanitize = os.environ.get("HGMM_SANITIZE") == "1"
    compile_args = [*FLAGS, *ISA_FLAGS[isa], *(["-O1", *SANITIZER] if sanitize else ["-O3"])]
    link_args = SANITIZER if sanitize else []
    if sys.platform != "darwin":
        compile_args.append("-fopenmp")
        link_args = [*link_args, "-fopenmp", "-Wl,-Bsymbolic"]
    return Extension(
        f"hgmm.kernels._hgmm_{isa}",
        SOURCES,
        depends=HEADERS,
        language="c++",
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


class BuildKernels(build_ext):
    """Compiles all files of both libraries side by side; the names carry no tag of a Python version."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extensions(self) -> None:
        # distutils compiles one file after the other.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._each(lambda jobs: list(pool.map(lambda job: self._compile(*job), jobs)))

    def _each(self, compile_all: object) -> None:
        try:
            jobs = [(ext, source) for ext in self.extensions for source in ext.sources]
            objects = compile_all(jobs)
            for ext in self.extensions:
                own = [path for (owner, _), path in zip(jobs, objects, strict=True) if owner is ext]
                self._link(ext, own)
        except (BaseError, CCompilerError, OSError) as error:
            if required():
                raise
            print(
                f"warning: the compiled kernels of hgmm could not be built ({error}); it is installed without them and "
                "runs on the reference, several times slower. HGMM_REQUIRE_NATIVE=1 makes this an error.",
                file=sys.stderr,
            )
            self.extensions = []
            for isa in isas():
                Path(self.get_ext_fullpath(f"hgmm.kernels._hgmm_{isa}")).unlink(missing_ok=True)

    def _compile(self, ext: Extension, source: str) -> str:
        # Both libraries are made of the same files.
        folder = str(Path(self.build_temp) / ext.name)
        (path,) = self.compiler.compile(
            [source], output_dir=folder, extra_postargs=ext.extra_compile_args, depends=ext.depends
        )
        return path

    def _link(self, ext: Extension, objects: list[str]) -> None:
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=ext.extra_link_args, target_lang="c++"
        )

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if Path(path).exists()]


class KernelDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class WheelForAnyPython(bdist_wheel):
    """py3-none-platform with the libraries, py3-none-any without."""

    def get_tag(self) -> tuple[str, str, str]:
        built = list((Path(self.bdist_dir) / "hgmm" / "kernels").glob("_hgmm_*.so")) if self.bdist_dir else []
        return ("py3", "none", super().get_tag()[2] if built else "any")


setup(
    ext_modules=[extension(isa) for isa in isas()],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelForAnyPython},
    distclass=KernelDistribution,
)
