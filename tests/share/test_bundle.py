"""A packed model's manifest and tar file, and every trick that must not pass."""

import hashlib
import io
import json
import tarfile

import pytest

from wespeaker_lap.share import bundle


@pytest.fixture
def sealed(tmp_path):
    """A folder with the files that a manifest must list, and one more below."""
    folder = tmp_path / "model"
    for name in (*bundle.REQUIRED, "encoder/model.safetensors", "hístogram.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    bundle.seal(folder, {"encoder": "e"})
    return folder


def test_the_manifest_has_the_hash_of_every_file(sealed):
    manifest = json.loads((sealed / "manifest.json").read_text())
    assert manifest["files"] == {
        path.relative_to(sealed).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sealed.rglob("*") if path.is_file() and path.name != "manifest.json"}
    assert bundle.check_bundle(sealed) == manifest and manifest["encoder"] == "e"


@pytest.mark.parametrize("name", [*bundle.REQUIRED, "encoder/model.safetensors"])
def test_a_changed_file_is_named(sealed, name):
    content = bytearray((sealed / name).read_bytes())
    content[-1] ^= 1
    (sealed / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} changed after packing \(SHA-256 differs"):
        bundle.check_bundle(sealed)


def test_a_missing_file_is_named(sealed):
    (sealed / "encoder" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"encoder/model\.safetensors of the manifest not"):
        bundle.check_bundle(sealed)


@pytest.mark.parametrize("name", ["a.pt", "a.pkl", "sub/pytorch_model.bin", "A.CKPT", "a.npy"])
def test_pickles_are_refused_wherever_they_are(sealed, name):
    (sealed / name).parent.mkdir(exist_ok=True)
    (sealed / name).write_bytes(b"\x80\x04.")
    for refuse in (bundle.check_bundle, lambda folder: bundle.seal(folder, {})):
        with pytest.raises(ValueError, match=f"{name}: files of this kind may be pickles"):
            refuse(sealed)


NAMES = ["/etc/passwd.txt", "../x.txt", "a/../../x.txt", "a//x.txt", "./x.txt", "C:/x.txt",
         "a\\..\\x.txt", "a\n.txt", ""]


@pytest.mark.parametrize("name", [*NAMES, "x.so", "x.py", "x", "x.pt"])
def test_names_in_a_manifest_that_are_refused(sealed, name):
    manifest = json.loads((sealed / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (sealed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"leads out of the folder|files only|may be pickles"):
        bundle.check_bundle(sealed)


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m.update(format="other"), "not the manifest of a packed model"),
    (lambda m: m.update(files=[]), "not the manifest of a packed model"),
    (lambda m: m.update(format_version=2), "format version 2, this toolkit reads 1"),
    (lambda m: m["files"].pop("model.safetensors"), r"lists no model\.safetensors"),
])
def test_other_manifests(sealed, change, message):
    manifest = json.loads((sealed / "manifest.json").read_text())
    change(manifest)
    (sealed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        bundle.check_bundle(sealed)
    (sealed / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json: not JSON"):
        bundle.check_bundle(sealed)


def test_a_tar_file_holds_the_same(sealed, tmp_path):
    bundle.write_tar(sealed, tmp_path / "a.tar", "tóp")
    bundle.write_tar(sealed, tmp_path / "b.tar", "tóp")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with bundle.unpacked(tmp_path / "a.tar") as folder:
        assert bundle.check_bundle(folder) == bundle.check_bundle(sealed)
        for name in bundle.check_bundle(sealed)["files"]:
            assert (folder / name).read_bytes() == (sealed / name).read_bytes()
    assert not folder.exists()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == {"tóp"}


def add(archive, name, kind=tarfile.REGTYPE, content=b"x", target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    member.size = len(content) if kind == tarfile.REGTYPE else 0
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("case", [
    *({"name": name} for name in NAMES[:-1]),
    *({"name": f"top/{name}"} for name in NAMES[1:-1] if not name.startswith("C")),
    {"name": "top/x.txt", "kind": tarfile.SYMTYPE, "target": "../../x.txt"},
    {"name": "top/x.txt", "kind": tarfile.LNKTYPE, "target": "top/y.txt"},
    {"name": "top/x.txt", "kind": tarfile.FIFOTYPE},
    {"name": "top/x.txt", "kind": tarfile.CHRTYPE},
    {"name": "top/x.txt", "kind": tarfile.BLKTYPE},
    {"name": "top/x.pkl"}, {"name": "top/x.sh"}, {"name": "other/x.txt"}, {"name": "x.txt"},
    {"name": "top/manifest.json"}], ids=str)
def test_tricks_in_a_tar_file_are_refused_before_anything_is_written(
        sealed, tmp_path, monkeypatch, case):
    bundle.write_tar(sealed, tmp_path / "a.tar", "top")
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        add(archive, **case)
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(bundle.tempfile, "tempdir", str(aside))
    monkeypatch.setattr(bundle.shutil, "copyfileobj", None)  # nothing may be copied
    with pytest.raises(ValueError, match=r"a\.tar: "), bundle.unpacked(tmp_path / "a.tar"):
        pass
    assert not list(aside.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_other_files_are_no_packed_models(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with (pytest.raises(ValueError, match=r"a\.tar: not a whole tar file"),
          bundle.unpacked(tmp_path / "a.tar")):
        pass


def test_a_tar_file_cut_short(sealed, tmp_path):
    bundle.write_tar(sealed, tmp_path / "a.tar", "top")
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:len(content) // 3 // 512 * 512 + 100])
    with (pytest.raises((ValueError, FileNotFoundError)),
          bundle.unpacked(tmp_path / "a.tar") as folder):
        bundle.check_bundle(folder)
