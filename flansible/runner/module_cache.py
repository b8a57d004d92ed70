"""Packed modules (AnsiballZ payloads) of the installation: packed once by the fork server, used by every later run.

Ansible packs a module with the code it imports into a zip file, which takes longer than all that a small module does,
and caches it for the rest of the run under the module's name. When a run has ended, its keeper names the modules it had
to pack; the fork server packs each in a child process, from the installation's files, and the runs it forks from then
on write the packed file where Ansible expects it. Only names come from a run. Only modules of the installation are
cached, and only where all module_utils are the installation's: a project's own modules and `module_utils` are packed by
each run, and so is a file that has changed since.

On this machine, with this Python, a small module spends its time compiling that code. So the compiled code is cached
too, by the hash of the source. It replaces only the compiling: names, tracebacks and errors are the same, and a source
that is not in the cache is compiled.

Measured (median CPU time of an ad-hoc `ping`, in turn, 2 busy cores): 330 ms with both, 615 ms without packed modules;
360 ms with compiled code, 510 ms without it.
"""

from __future__ import annotations

import _imp
import base64
import contextlib
import io
import marshal
import os
import re
import zipfile
from collections.abc import Iterable
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import ansible.modules
from ansible import constants
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_utils_loader
from ansible.template import Templar
from ansible.utils.display import Display

from flansible.runner import module_wrapper
from flansible.runner.ansible_internals import replace
from flansible.system.atomic_files import replacing

_MODULES = os.path.realpath(os.path.dirname(str(ansible.modules.__file__)))
_INSTALLATION = os.path.dirname(os.path.dirname(_MODULES))
_CACHE = "ansiballz_cache"  # in the run's temp directory; named by module, compression, extensions (none)
_NAME = re.compile(r"ansible\.modules\.([a-z0-9_]+)-(ZIP_[A-Z0-9]+)-none")
_MAX_NAME_CHARS = 128
_MAX_NAMES = 20
_MAX_BYTES = 32 * 1024 * 1024
_VERBOSE = 5  # from this verbosity on Ansible prints what it packs

_BYTECODE = "flansible-bytecode"
# Run by the program that Ansible wraps around a Python module.
_USE_BYTECODE = """\
try:
    import sys, _frozen_importlib_external, _imp, marshal, zipimport
    with open(%r, 'rb') as file:
        same_python = file.read(4) == _frozen_importlib_external.MAGIC_NUMBER and not sys.flags.optimize
        known = same_python and marshal.load(file)
    if known:
        compile_source = zipimport._compile_source
        def compiled(pathname, source):
            code = known.get(_imp.source_hash(%d, source))
            if code is None:
                return compile_source(pathname, source)
            code = marshal.loads(code)
            _imp._fix_co_filename(code, pathname)
            return code
        zipimport._compile_source = compiled
except Exception:
    pass
"""
_HASH_KEY = 0x466C616E7369626C

_Stamps = list[tuple[str, int, int, int]]  # path, modification time in nanoseconds, size, inode


class ModuleCache:
    """Packed modules and compiled sources of one fork server; each run it forks inherits a copy."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[bytes, _Stamps]] = {}
        # The file that modules read: this Python's bytecode magic number, then compiled code by the hash of its source.
        self._bytecode = b""
        self._refused: set[str] = set()

    def missing(self, folder: str) -> list[str]:
        """Lists the modules that the run with this temp directory had to pack and that are not in the cache."""
        try:
            names = os.listdir(os.path.join(folder, _CACHE))
        except OSError:
            return []
        return [name for name in sorted(names) if self.is_new(name)][:_MAX_NAMES]

    def is_new(self, name: str) -> bool:
        """Tests whether this is the name of an installed module to pack: valid, and not cached, current, or refused."""
        known = self._packed.get(name)
        return bool(
            len(name) <= _MAX_NAME_CHARS
            and _NAME.fullmatch(name)
            and name not in self._refused
            and (known is None or not _is_current(known[1]))
        )

    def add(self, name: str, built: bytes) -> None:
        """Adds the result of `pack`; an empty one makes the name refused from now on."""
        if not built:
            self._refused.add(name)
            return
        packed, stamps, bytecode = marshal.loads(built)
        self._packed[name] = packed, stamps
        compiled = marshal.loads(self._bytecode[len(MAGIC_NUMBER) :]) if self._bytecode else {}
        self._bytecode = MAGIC_NUMBER + marshal.dumps({**compiled, **bytecode})
        while sum(len(packed) for packed, _ in self._packed.values()) > _MAX_BYTES:
            self._packed.pop(next(iter(self._packed)))

    def install_in_run(self, folder: str) -> None:
        """Makes Ansible find the cached modules in `folder`, in this process and those forked from it."""

        def find_module_utils(*, module_path: str, module_compression: str, **rest: Any) -> Any:
            self._write_if_current(folder, module_path, module_compression)
            return find_originally(module_path=module_path, module_compression=module_compression, **rest)

        find_originally = replace(module_common, "_find_module_utils", find_module_utils)

    def add_bytecode(self, folder: str, wrapper: str) -> str:
        """Makes Ansible's wrapper of a module use the compiled code; for modules that run on this machine."""
        if not self._bytecode:
            return wrapper
        place = os.path.join(folder, _BYTECODE)
        if not os.path.exists(place):
            _write(place, self._bytecode)
        return module_wrapper.add_program(wrapper, _USE_BYTECODE % (place, _HASH_KEY))

    def _write_if_current(self, folder: str, module_path: str, compression: str) -> None:
        name = f"ansible.modules.{os.path.splitext(os.path.basename(module_path))[0]}-{compression}-none"
        known = self._packed.get(name)
        if known is None or Display().verbosity >= _VERBOSE or constants.DEFAULT_DEBUG:
            return
        place = os.path.join(folder, _CACHE, name)
        if (
            not os.path.exists(place)
            and _is_installed(module_path)
            and _has_only_installed_module_utils()
            and _is_current(known[1])
        ):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _write(place, known[0])


def pack(name: str, folder: str) -> bytes:
    """Packs and compiles a module for `add`. Called in a child of the fork server; folder: its temp directory."""
    found = _NAME.fullmatch(name)
    path = os.path.join(_MODULES, f"{found[1]}.py") if found else ""
    if not found or not os.path.isfile(path) or not _has_only_installed_module_utils():
        return b""
    replace(constants, "DEFAULT_LOCAL_TMP", folder)
    init_plugin_loader()
    module_common.modify_module(
        module_name=found[1],
        module_path=path,
        module_args={},
        templar=Templar(loader=DataLoader()),
        task_vars={"ansible_python_interpreter": "python"},
        module_compression=found[2],
    )
    with open(os.path.join(folder, _CACHE, name), "rb") as file:
        packed = file.read()
    cached = module_common._CachedModule.load(os.path.join(folder, _CACHE, name))
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(cached.zip_data))) as archive:
        sources = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
    return marshal.dumps((packed, _stamps(sources), dict(map(_compile, sources.items()))))


def _compile(item: tuple[str, bytes]) -> tuple[bytes, bytes]:
    name, source = item
    return _imp.source_hash(_HASH_KEY, source), marshal.dumps(compile(source, name, "exec", dont_inherit=True))


def _stamps(sources: Iterable[str]) -> _Stamps:
    """Returns the stamps of installed files among the sources; Ansible generates some package files itself."""
    paths = [os.path.join(_INSTALLATION, name) for name in sources]
    return [_stamp(path) for path in paths if os.path.isfile(path)]


def _stamp(path: str) -> tuple[str, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return path, 0, 0, 0
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def _is_current(stamps: _Stamps) -> bool:
    return all(_stamp(stamp[0]) == stamp for stamp in stamps)


def _is_installed(module_path: str) -> bool:
    return os.path.dirname(os.path.realpath(module_path)) == _MODULES


def _has_only_installed_module_utils() -> bool:
    """Tests whether module_utils can come from the installation only."""
    own = {str(module_common._MODULE_UTILS_PATH), *module_utils_loader._get_package_paths(subdirs=False)}
    return all(path in own or not os.path.isdir(path) for path in module_utils_loader._get_paths(subdirs=False))


def _write(place: str, data: bytes) -> None:
    """Writes atomically: several worker processes of a run may do so at once."""
    # Ansible packs, and the module compiles, what it does not find.
    with contextlib.suppress(OSError), replacing(Path(place)) as temporary:
        temporary.write_bytes(data)
