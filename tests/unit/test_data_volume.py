"""The data volume: which device it is, what is refused, and what is left alone."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .project import ROOT, load_module, render, role_variables

ID = "vol-0123456789abcdef0"
SERIAL = "vol0123456789abcdef0"
TEMPLATES = ROOT / "roles/data_volume/templates"


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script with a host of its own, where every file is a device."""
    module = load_module("roles/data_volume/files/look_at_volume.py")
    (tmp_path / "dev/disk/by-id").mkdir(parents=True)
    (tmp_path / "block").mkdir()
    monkeypatch.setattr(module, "DEV", tmp_path / "dev")
    monkeypatch.setattr(module, "BLOCK", tmp_path / "block")
    monkeypatch.setattr(module, "is_block_device", Path.is_file)
    return module


def add(look: ModuleType, name: str, serial: str = "", gigabytes: int = 8) -> Path:
    """Add a device to the host."""
    device = Path(look.DEV / name)
    device.touch()
    (look.BLOCK / name / "device").mkdir(parents=True)
    (look.BLOCK / name / "size").write_text(f"{gigabytes * 10**9 // 512}\n")
    if serial:
        # The kernel pads the number with blanks.
        (look.BLOCK / name / "device/serial").write_text(f"{serial:<20}\n")
    return device


def test_volume_is_found_by_the_link_of_its_id(look: ModuleType) -> None:
    add(look, "nvme0n1", "vol0aaaaaaaaaaaaaaaa")
    volume = add(look, "nvme2n1")
    (look.DEV / f"disk/by-id/nvme-Amazon_Elastic_Block_Store_{SERIAL}").symlink_to(volume)
    assert look.find(ID, "") == volume


def test_volume_is_found_by_its_serial_number_where_there_is_no_link(look: ModuleType) -> None:
    add(look, "nvme0n1", "vol0aaaaaaaaaaaaaaaa")
    volume = add(look, "nvme1n1", SERIAL)
    assert look.find(ID, "") == volume


def test_volume_is_found_by_its_name_on_xen(look: ModuleType) -> None:
    add(look, "xvda")
    assert look.find(ID, "") is None
    volume = add(look, "xvdf")
    assert look.find(ID, "") == volume


def test_link_that_has_the_name_of_xen_is_not_the_volume(look: ModuleType) -> None:
    (look.DEV / "xvdf").symlink_to(add(look, "nvme0n1", "vol0aaaaaaaaaaaaaaaa"))
    assert look.find(ID, "") is None


def test_device_that_is_named_goes_before_the_id(look: ModuleType) -> None:
    add(look, "nvme1n1", SERIAL)
    named = add(look, "sdb")
    assert look.find(ID, str(named)) == named
    assert look.find(ID, str(look.DEV / "sdx")) is None


def test_missing_volume_is_told_with_the_devices_that_there_are(look: ModuleType) -> None:
    add(look, "nvme0n1", "vol0aaaaaaaaaaaaaaaa")
    add(look, "loop0")
    add(look, "sr0", gigabytes=0)
    settings = {"id": ID, "device": "", "mount": "/srv", "filesystem": "ext4", "timeout": 0}
    found = look.look(settings)
    assert not found["device"]
    (listed,) = found["devices"]
    assert listed.endswith("nvme0n1 (8.0 GB, serial vol0aaaaaaaaaaaaaaaa)")


@pytest.mark.parametrize("blocks", [262_144, 5 << 32 | 7])
def test_size_of_ext4_is_read_with_all_its_bits(look: ModuleType, tmp_path: Path, blocks: int) -> None:
    head = bytearray(4096)
    for at, value in ((4, blocks & 0xFFFFFFFF), (24, 2), (96, 0x2C2), (336, blocks >> 32)):
        struct.pack_into("<I", head, 1024 + at, value)
    (tmp_path / "disk").write_bytes(head)
    assert look.filesystem_size(tmp_path / "disk", "ext4", "") == blocks * 4096


def test_high_bits_count_only_where_the_filesystem_has_them(look: ModuleType, tmp_path: Path) -> None:
    head = bytearray(4096)
    for at, value in ((4, 1000), (24, 0), (96, 0x242), (336, 99)):
        struct.pack_into("<I", head, 1024 + at, value)
    (tmp_path / "disk").write_bytes(head)
    assert look.filesystem_size(tmp_path / "disk", "ext4", "") == 1000 * 1024


def test_only_files_are_data(look: ModuleType, tmp_path: Path) -> None:
    assert not look.has_files(tmp_path / "missing")
    (tmp_path / "empty/folders").mkdir(parents=True)
    assert not look.has_files(tmp_path / "empty")
    (tmp_path / "empty/folders/file").touch()
    assert look.has_files(tmp_path / "empty")


SEEN = {
    "device": "/dev/nvme1n1",
    "size": "20.0 GB",
    "signatures": ["ext4"],
    "mounted": False,
    "mounted_elsewhere": [],
    "in_its_place": "",
    "uuid": "1-2",
    "fstab": "",
}


def problems(**seen: Any) -> str:
    """Render what is refused."""
    variables = role_variables("data_volume") | {
        "data_volume_id": ID,
        "inventory_hostname": "ml",
        "mlstack_settings_file": "inventory/server/group_vars/server.yml",
        "path": str(TEMPLATES / "problems.j2"),
        "__data_volume": SEEN | seen,
    }
    return str(render("lookup('ansible.builtin.template', path) or ''", variables)).strip()


@pytest.mark.parametrize("kinds", [[], ["ext4"]])
def test_blank_volume_and_our_own_filesystem_are_taken(kinds: list[str]) -> None:
    assert problems(signatures=kinds) == ""


@pytest.mark.parametrize(
    "kinds", [["xfs"], ["gpt"], ["crypto_LUKS"], ["LVM2_member"], ["ext3"], ["dos", "ext4"], ["ext4", "gpt"]]
)
def test_anything_else_is_refused(kinds: list[str]) -> None:
    told = problems(signatures=kinds)
    assert f"/dev/nvme1n1 (20.0 GB) on ml holds {', '.join(kinds)}, not ext4" in told
    assert ("set data_volume_filesystem: xfs in inventory/server" in told) is (kinds == ["xfs"])


@pytest.mark.parametrize("now", ["", "3-4"])
def test_volume_that_takes_the_place_of_another_is_refused(now: str) -> None:
    noted = "UUID=1-2 /var/lib/mlstack ext4 noatime 0 2"
    assert problems(fstab=noted) == ""
    told = problems(fstab=noted, uuid=now, signatures=["ext4"] if now else [])
    assert f"/dev/nvme1n1 ({now or 'blank'}) is not the volume that was mounted" in told
    assert "mounted at /var/lib/mlstack before (UUID=1-2 in /etc/fstab of ml)" in told
    assert "sudo sed -i /UUID=1-2/d /etc/fstab" in told


def test_volume_in_use_elsewhere_is_refused() -> None:
    assert "it is mounted at /mnt, /srv. Set another" in problems(mounted_elsewhere=["/mnt", "/srv"])
    assert problems(mounted=True, mounted_elsewhere=["/mnt"]) == ""
    assert "/dev/sdb is already mounted there, not /dev/nvme1n1" in problems(in_its_place="/dev/sdb")
