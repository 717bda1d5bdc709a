"""A data volume: made once, never formatted again, never hidden, and a service that waits for it."""

import os
import time
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest
from testinfra.host import Host

Playbook = Callable[..., CompletedProcess[str]]
CONVERGE = "molecule/data_volume/converge.yml"
# The role alone.
VOLUME = "molecule/data_volume/volume.yml"
PLACE = "/srv/mlstack"
# The second disk, for what the first one must be spared.
OTHER = ["-e", "data_volume_device=/dev/sdc", "-e", "mlstack_data_dir=/srv/other"]
XFS = [*OTHER, "-e", "data_volume_filesystem=xfs"]
WEB = "curl --silent --fail --max-time 5 http://127.0.0.1:8000/"


def said(run: CompletedProcess[str]) -> str:
    """Return what a playbook printed, without the line breaks that YAML puts in."""
    return " ".join(run.stdout.split())


def uuid(host: Host, device: str = "/dev/sdb") -> str:
    return host.check_output(f"blkid --probe --match-tag UUID --output value {device}")


def wait_for_web(host: Host) -> str:
    """Wait until the service answers, and return its page."""
    end = time.monotonic() + 30
    while (answer := host.run(WEB)).rc and time.monotonic() < end:
        time.sleep(0.5)
    assert answer.rc == 0, host.run("journalctl --unit web --lines 20").stdout
    return str(answer.stdout)


@pytest.mark.restart
def test_volume_is_mounted_by_its_uuid_and_the_service_is_on_it(host: Host) -> None:
    mount = host.mount_point(PLACE)
    assert (mount.device, mount.filesystem) == ("/dev/sdb", "ext4")
    assert "noatime" in mount.options
    (line,) = [line for line in host.file("/etc/fstab").content_string.splitlines() if PLACE in line]
    assert line.startswith(f"UUID={uuid(host)} {PLACE} ext4 ")
    assert "nofail" in line
    assert host.check_output("blkid --probe --match-tag LABEL --output value /dev/sdb") == "mlstack-data"
    wait_for_web(host)


@pytest.mark.restart
def test_ebs_volume_is_found_by_its_id_and_nothing_changes(host: Host, playbook: Playbook) -> None:
    folder, serial = "/dev/disk/by-id", "vol0123456789abcdef0"
    link = f"{folder}/nvme-Amazon_Elastic_Block_Store_{serial}"
    host.check_output(f"mkdir --parents {folder} && ln --symbolic --force /dev/sdb {link}")
    again = playbook(VOLUME, "-e", "data_volume_id=vol-0123456789abcdef0", "-e", "data_volume_device=")
    assert again.returncode == 0
    assert "changed=0" in again.stdout


def test_full_host_is_previewed_without_a_change(playbook: Playbook) -> None:
    preview = playbook(VOLUME, "--check", "--diff")
    assert preview.returncode == 0
    assert "changed=0" in preview.stdout


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["data_volume_device=/dev/sdx"], ["data_volume_device = /dev/sdx: my-server has no such device"]),
        (
            ["data_volume_device=", "data_volume_id=vol-0bad"],
            ["data_volume_id = vol-0bad: my-server has no such", "describe-volumes --volume-ids vol-0bad"],
        ),
        (["mlstack_data_dir=/srv/second"], [f"/dev/sdb is in use: it is mounted at {PLACE}"]),
        (["data_volume_device=/dev/sdc"], ["/dev/sdb is already mounted there, not /dev/sdc"]),
    ],
)
def test_wrong_volume_is_refused(playbook: Playbook, arguments: list[str], messages: list[str]) -> None:
    extra = [word for argument in arguments for word in ("-e", argument)]
    run = playbook(VOLUME, "-e", "data_volume_timeout=1", *extra)
    assert run.returncode != 0
    assert "changed=0" in run.stdout
    assert not [message for message in messages if message not in said(run)]


def test_service_refuses_the_empty_folder_and_recovers_when_the_volume_is_there(host: Host) -> None:
    host.check_output(f"systemctl stop web && umount {PLACE}")
    assert host.run("systemctl start web").rc != 0
    assert host.check_output(f"find {PLACE} -mindepth 1") == ""
    assert f"{PLACE} is not a mountpoint" in host.check_output("journalctl --unit web --lines 20")
    host.check_output(f"mount {PLACE}")
    wait_for_web(host)


@pytest.fixture
def units_of_fstab(host: Host) -> Iterator[None]:
    """Let systemd make units of /etc/fstab, which in a container (/sys is read-only) it does not do."""
    host.check_output("mount -o remount,rw /sys && systemctl daemon-reload")
    yield
    host.check_output("mount -o remount,ro /sys && systemctl daemon-reload")


@pytest.mark.usefixtures("units_of_fstab")
def test_systemd_ties_the_service_to_the_mount_of_fstab(host: Host) -> None:
    mount = "srv-mlstack.mount"
    host.check_output(f"systemctl stop {mount}")
    assert host.run("systemctl is-active web").stdout.strip() == "inactive"
    # Without udev here no device ever shows up for systemd, as if the volume were not attached.
    failed = host.run("systemctl start web")
    assert failed.rc != 0
    assert "dependency job for web.service failed" in failed.stderr
    assert host.check_output(f"systemctl show --property=WantedBy --value {mount}") == "local-fs.target"
    assert host.check_output("systemctl is-active ssh multi-user.target").split() == ["active", "active"]
    host.check_output(f"mount {PLACE} && systemctl start web")
    wait_for_web(host)


def test_device_with_a_foreign_signature_is_refused_untouched(host: Host, playbook: Playbook) -> None:
    host.check_output("mkswap --label mine /dev/sdc")
    before = host.check_output("sha256sum /dev/sdc")
    run = playbook(VOLUME, *OTHER)
    assert run.returncode != 0
    assert "changed=0" in run.stdout
    assert "/dev/sdc (0.5 GB) on my-server holds swap, not ext4 (data_volume_filesystem)" in said(run)
    assert "sudo wipefs --all /dev/sdc" in said(run)
    assert host.check_output("sha256sum /dev/sdc") == before
    host.check_output("wipefs --all --quiet /dev/sdc")


def test_move_is_previewed(host: Host, playbook: Playbook) -> None:
    assert playbook(CONVERGE, *OTHER, "-e", "data_volume_device=").returncode == 0
    host.check_output("echo precious > /srv/other/web/index.html && chown 10001:10001 /srv/other/web")
    preview = playbook(VOLUME, *XFS, "--check", "--diff")
    assert preview.returncode == 0
    assert "/dev/sdc (0.5 GB) is blank: it would be formatted with xfs." in said(preview)
    assert "The data of /srv/other would be moved onto it" in said(preview)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("fallocate --length 600M", "has room for"),
        # diff calls no two pipes equal.
        ("mkfifo", "The copy of /srv/other differs"),
    ],
)
def test_move_that_fails_leaves_all_as_it_was(
    host: Host, playbook: Playbook, made: str, message: str
) -> None:
    host.check_output(f"{made} /srv/other/odd")
    run = playbook(VOLUME, *XFS)
    assert run.returncode != 0
    assert message in said(run)
    assert wait_for_web(host) == "precious\n"
    assert not host.mount_point("/srv/other").exists
    host.check_output("rm /srv/other/odd")


def test_data_of_the_folder_is_moved_and_the_old_folder_kept(host: Host, playbook: Playbook) -> None:
    moved = playbook(VOLUME, *XFS)
    assert moved.returncode == 0
    assert host.mount_point("/srv/other").filesystem == "xfs"
    assert wait_for_web(host) == "precious\n"
    assert host.file("/srv/other/web").uid == 10001
    (old,) = host.check_output("ls --directory /srv/other.before-data-volume-*").splitlines()
    assert f"sudo rm -r {old}" in said(moved)
    assert host.file(f"{old}/web/index.html").content_string == "precious\n"
    assert "changed=0" in playbook(VOLUME, *XFS).stdout


def test_folder_and_volume_that_both_hold_data_are_left_alone(host: Host, playbook: Playbook) -> None:
    host.check_output("systemctl stop web && umount /srv/other && sed -i /other/d /etc/fstab")
    host.check_output("mkdir --parents /srv/other/web && echo newer > /srv/other/web/index.html")
    run = playbook(VOLUME, *XFS)
    assert run.returncode != 0
    assert "Both hold data: the folder /srv/other on the root disk, and the volume /dev/sdc" in said(run)
    assert host.file("/srv/other/web/index.html").content_string == "newer\n"
    assert not host.mount_point("/srv/other").exists
    host.check_output("rm --recursive /srv/other/web && mkdir --parents /mnt && mount /dev/sdc /mnt")
    assert host.file("/mnt/web/index.html").content_string == "precious\n"
    host.check_output("umount /mnt")
    assert playbook(VOLUME, *XFS).returncode == 0
    host.check_output("systemctl start web")
    assert wait_for_web(host) == "precious\n"


def enlarge(host: Host, disk: str) -> None:
    """Enlarge a disk while it is in use."""
    os.truncate(f".cache/molecule/molecule-{os.environ['MOLECULE_SCENARIO_NAME']}-{disk}", 1 << 30)
    host.check_output(f"losetup --set-capacity /dev/{disk}")


def test_enlarged_volume_has_its_filesystem_grown_once(host: Host, playbook: Playbook) -> None:
    enlarge(host, "sdc")
    preview = playbook(VOLUME, *XFS, "--check", "--diff")
    assert "The filesystem of /dev/sdc (1.1 GB) would grow to the size of the volume." in said(preview)
    grown = playbook(VOLUME, *XFS)
    assert grown.returncode == 0
    assert "changed=1" in grown.stdout
    assert int(host.check_output("df --block-size=1M --output=size /srv/other").split()[-1]) > 800
    assert wait_for_web(host) == "precious\n"
    assert "changed=0" in playbook(VOLUME, *XFS).stdout


def test_enlarged_volume_with_ext4_is_seen(host: Host, playbook: Playbook) -> None:
    """Growing a mounted ext4 takes CAP_SYS_RESOURCE, which the container lacks: so it is grown unmounted."""
    enlarge(host, "sdb")
    preview = playbook(VOLUME, "--check", "--diff")
    assert "The filesystem of /dev/sdb (1.1 GB) would grow to the size of the volume." in said(preview)
    asked = playbook(VOLUME)
    assert asked.returncode != 0
    assert "resize2fs" in said(asked)
    assert "Permission denied to resize filesystem" in said(asked)
    host.check_output(f"umount {PLACE} && e2fsck -f -p /dev/sdb && resize2fs /dev/sdb && mount {PLACE}")
    assert "changed=0" in playbook(VOLUME).stdout


def test_new_host_finds_the_data_of_the_old_one(host: Host, playbook: Playbook) -> None:
    assert playbook(CONVERGE).returncode == 0
    host.check_output(f"echo kept > {PLACE}/web/index.html && sync")
    before = uuid(host)
    assert playbook("molecule/shared/destroy.yml").returncode == 0
    assert playbook("molecule/data_volume/create.yml").returncode == 0
    assert host.file("/etc/fstab").content_string.find(PLACE) == -1
    assert playbook(CONVERGE).returncode == 0
    assert wait_for_web(host) == "kept\n"
    assert uuid(host) == before


@pytest.mark.restart
def test_data_is_there_after_all_this(host: Host) -> None:
    assert wait_for_web(host) == "kept\n"
