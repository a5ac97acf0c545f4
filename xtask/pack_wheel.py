"""Packs a wheel: the Python package, the compiled module and the `farlane` binary.

Takes one argument, the order as JSON (see xtask/src/wheel.rs), and prints the wheel's path. Only
the standard library is needed. The same inputs give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import sysconfig
import zipfile

#: Of every file inside: the oldest that a zip can tell.
DATE = (1980, 1, 1, 0, 0, 0)
#: Oldest CPython that the stable ABI of the module fits (see `abi3-py310` in Cargo.toml).
PYTHON_TAG = "cp310-abi3"


class Packer:
    """A zip that remembers what RECORD must list."""

    def __init__(self, path: str) -> None:
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.record: list[str] = []

    def add(self, name: str, data: bytes, mode: int = 0o644) -> None:
        info = zipfile.ZipInfo(name, DATE)
        info.external_attr = (0o100000 | mode) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        self.zip.writestr(info, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self.record.append(f"{name},sha256={digest},{len(data)}")

    def finish(self, name: str) -> None:
        text = "\n".join([*self.record, f"{name},,", ""])
        self.zip.writestr(zipfile.ZipInfo(name, DATE), text)
        self.zip.close()


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def sources(package: str) -> list[tuple[str, str]]:
    """The package's files as (name inside, path), in a fixed order."""
    found = []
    for folder, folders, files in os.walk(package):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            if name.endswith((".py", ".pyi", ".typed")):
                path = os.path.join(folder, name)
                found.append((os.path.relpath(path, os.path.dirname(package)), path))
    return found


def metadata(order: dict) -> bytes:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {order['name']}",
        f"Version: {order['version']}",
        f"Summary: {order['summary']}",
        f"Requires-Python: {order['requires_python']}",
        f"License-Expression: {order['license']}",
        *(f"License-File: {os.path.basename(path)}" for path in order["licences"]),
        *(f"Requires-Dist: {need}" for need in order["dependencies"]),
    ]
    return ("\n".join(lines) + "\n").encode()


def main() -> None:
    order = json.loads(sys.argv[1])
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    tag = f"{PYTHON_TAG}-{platform}"
    stem = f"{order['name']}-{order['version']}"
    path = os.path.join(order["out"], f"{stem}-{tag}.whl")
    packer = Packer(path)
    for name, source in sources(order["package"]):
        packer.add(name, read(source))
    packer.add(f"{order['name']}/_farlane.abi3.so", read(order["module"]), 0o755)
    packer.add(f"{stem}.data/scripts/farlane", read(order["binary"]), 0o755)
    info = f"{stem}.dist-info"
    for licence in order["licences"]:
        packer.add(f"{info}/licenses/{os.path.basename(licence)}", read(licence))
    packer.add(f"{info}/METADATA", metadata(order))
    wheel = f"Wheel-Version: 1.0\nGenerator: farlane-xtask\nRoot-Is-Purelib: false\nTag: {tag}\n"
    packer.add(f"{info}/WHEEL", wheel.encode())
    packer.finish(f"{info}/RECORD")
    print(path)


if __name__ == "__main__":
    main()
