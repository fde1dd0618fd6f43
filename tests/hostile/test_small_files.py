# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of some hundred kilobytes that would take gigabytes, or hours."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.cli import main as ggdr
from ggdr.scripts.errors import CliError
from ggdr.scripts.reports.page_pictures import Pictures, _unenlarged
from ggdr.scripts.reports.panels import MAX_PANELS
from ggdr.scripts.reports.read_run import LOG_LINES, read_run
from ggdr.scripts.studies.definition import MAX_RUNS, Request, Variant, combine, read_yaml
from ggdr.torch_utils.data import archives, image_files
from ggdr.torch_utils.data.archives import open_source
from ggdr.torch_utils.data.container import Container
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.untrusted.json_text import MAX_NESTED, parse_json
from tests.dataset_files import RGB, cifar_tar, encode, write_zip
from tests.fuzzing import run_bounded
from tests.hostile.test_runs import make_run

PNG = encode(RGB[0])


def even_png(side: int, channels: int) -> bytes:
    """A black PNG of 3 or 4 channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    num_bytes = side * (1 + side * channels)
    deflate = zlib.compressobj(9, wbits=-15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # after which it can be repeated
    end = deflate.compress(bytes(num_bytes % 2**20)) + deflate.flush()
    check = struct.pack(">HH", num_bytes % 65521, 1)
    pixels = b"\x78\xda" + block * (num_bytes // 2**20) + end + check
    header = struct.pack(">IIBBBBB", side, side, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def read_from(path: Path, name: str) -> bytes:
    """A file of a zip."""
    container = Container(path)
    return container.read(container.find(name))


def labels_zip(path: Path, text: bytes, num: int) -> Path:
    """A zip of empty images and of text, which takes a thousandth of its size in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(num):
            archive.writestr(f"{i}.png", b"")
        archive.writestr(zipfile.ZipInfo("dataset.json"), text, zipfile.ZIP_DEFLATED, 9)
    return path


def test_files_of_some_hundred_kilobytes_take_little_memory(tmp_path):
    """A picture of 200 million bytes, below Pillow's own bound; lists that take twenty times their text; an archive."""
    with Image.open(io.BytesIO(even_png(100, 4))) as img:
        assert img.size == (100, 100) and not np.asarray(img).any()  # what the bomb is made of is sound
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(even_png(7000, 4))
    labels_zip(tmp_path / "much-text.zip", b'{"labels": [' + b"[]," * (2**24 // 3) + b"[]]}", 400)
    labels_zip(tmp_path / "lists.zip", b'{"labels": [' + b"[]," * (2**21 // 3) + b"[]]}", 400)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**19, 32, 32)
    (tmp_path / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx) + 512 * gzip.compress(bytes(2**20)))
    assert all(path.stat().st_size < 600_000 for path in tmp_path.rglob("*"))
    body = """
        import sys
        from pathlib import Path
        import numpy, PIL.Image
        from ggdr.scripts.viewing.photographs import read_targets
        from ggdr.torch_utils.data.archives import open_source
        from ggdr.torch_utils.data.convert import Conversion
        from ggdr.torch_utils.data.dataset import ImageDataset
        from ggdr.torch_utils.data.image_files import DataError
        PIL.Image.init()

        def convert(path):
            for name, raw in open_source(str(path.parent)).items([0]):
                Conversion(resolution=8)(raw, name)

        # bounded
        folder = Path(sys.argv[1])
        for read, name in (
            (convert, "p/a.png"),
            (lambda path: read_targets([path], 8, 3), "p/a.png"),
            (ImageDataset, "much-text.zip"),
            (ImageDataset, "lists.zip"),
            (lambda path: open_source(str(path)), "t-images-idx3-ubyte.gz"),
        ):
            try:
                read(folder / name)
            except DataError as error:
                print("refused", error)
    """
    output = run_bounded(body, tmp_path, megabytes=180)
    assert output.count("refused /") == 5 and "MemoryError" not in output, output
    assert output.count("hold 7000x7000 pixels, far more than a photograph's") == 2
    assert "has 16,777,2" in output and "lists and objects" in output


# Pictures.


def test_pictures_as_people_have_them_are_read(monkeypatch):
    """With a thousandth of what pictures may take besides a multiple of their size."""
    monkeypatch.setattr(image_files, "FREE", 2**16)
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    smooth = np.stack(np.meshgrid(range(600), range(600), [0, 9, 30]), -1).sum(-1).astype(np.uint8)
    for pixels in (noise, smooth):
        for kind in ("jpeg", "webp"):
            assert load_image(encode(pixels, kind, quality=75), "a").size == (600, 600)
    assert load_image(encode(noise), "a").size == (600, 600)
    assert load_image(encode(Image.new("RGB", (128, 128))), "a").size == (128, 128)
    assert load_image(encode(Image.new("1", (256, 256))), "a").size == (256, 256)
    with pytest.raises(DataError, match="far more than a photograph's; expected 0 MiB of pixels at most, got 1"):
        load_image(encode(Image.new("RGB", (600, 600))), "a")


def test_a_picture_that_was_enlarged_is_still_found_and_kept_small(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    for scale in (2, 3, 16):
        large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
        assert (np.asarray(_unenlarged(Image.fromarray(large))) == pixels).all()
        for row, column in ((0, 1), (1, 0), (large.shape[0] - 1, large.shape[1] - 1)):
            other = large.copy()
            other[row, column] ^= 1
            assert _unenlarged(Image.fromarray(other)).size != (4, 6)
    Image.new("RGB", (3000, 10)).save(tmp_path / "wide.png")
    found = Pictures().add_file(tmp_path / "wide.png", is_sheet=True)
    assert (found["width"], found["height"]) == (3000, 10)


def test_files_that_inflate_to_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ggdr.torch_utils.data.container.FREE", 2**16)
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", b"BM" + bytes(2**20))
        archive.writestr("b.bmp", b"BM" + bytes(2**15))
    with pytest.raises(DataError, match="in the zip say that they hold 1,048,578"):
        read_from(tmp_path / "d.zip", "a.bmp")
    assert len(read_from(tmp_path / "d.zip", "b.bmp")) == 2**15 + 2


# Labels.


def test_labels_as_people_have_them_are_read(tmp_path):
    names = {f"a[{i}] {{}}.png": PNG for i in range(40)}
    for label in (1, [0.5, 0.25]):
        text = json.dumps({"labels": [[name, label] for name in names]}).encode()
        assert ImageDataset(write_zip(tmp_path / "d.zip", {**names, "dataset.json": text}), use_labels=True).c_dim == 2


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("item", ["[]", "{}", '{"a":[]}'])
def test_json_has_a_bound_of_lists_and_objects(kind, item):
    def text(num: int) -> str | bytes:
        joined = "[" + ",".join([item] * num) + "]"
        return joined if kind is str else joined.encode()

    each = item.count("[") + item.count("{")
    most = (MAX_NESTED - 1) // each
    assert len(parse_json(text(most))) == most
    with pytest.raises(ValueError, match="more than 65,536 lists and objects"):
        parse_json(text(most + 1))
    assert len(parse_json(text(3), most_nested=1 + 3 * each)) == 3


# Archives.


def test_members_of_archives_count_together(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE", 2**18)
    batch = pickle.dumps({b"data": np.zeros((30, 3072), np.uint8), b"labels": [0] * 30}, 2)
    for num, is_read in ((1, True), (9, False)):
        cifar_tar(tmp_path / "cifar.tar.gz", **{f"data_batch_{i}": batch for i in range(1, num + 1)})
        if is_read:
            assert open_source(str(tmp_path / "cifar.tar.gz")).count == 30
        else:
            with pytest.raises(DataError, match="it unpacks to more than"):
                open_source(str(tmp_path / "cifar.tar.gz"))


# Time.


def test_extended_headers_of_tars_are_passed_over(tmp_path):
    """tarfile takes hours for the first archive, and recurses at each header of the second."""
    batch = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}, 2)

    def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.type = len(data), kind
        return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)

    for headers in (member("x", b"1" * 2**20, tarfile.XHDTYPE), 2000 * member("x", b"9 a=bcd\n", tarfile.XHDTYPE)):
        path = tmp_path / "cifar.tar.gz"
        path.write_bytes(gzip.compress(headers + member("b/data_batch_1", batch) + bytes(1024)))
        assert open_source(str(path)).count == 1
        for cut in (100, 1000):
            path.write_bytes(gzip.compress(headers + member("b/data_batch_1", batch)[:cut]))
            with pytest.raises(DataError, match="truncated|damaged"):
                open_source(str(path))


def test_a_log_of_one_endless_line_is_read_from_its_end(tmp_path):
    run = make_run(tmp_path / "run", **{"log.txt": "tick 1 kimg 1 " * 100_000 + "\n" + "last\n" * 100})
    log = read_run(run, "run").log
    assert log == ["last"] * LOG_LINES
    (run / "log.txt").write_text("tick 1 kimg 1 " * 100_000)
    assert sum(map(len, read_run(run, "run").log)) <= 2**16


def test_no_pattern_takes_quadratic_time():
    """Every pattern that texts of a run or dataset meet, on the texts that are worst for its kind."""
    from ggdr.metrics import names
    from ggdr.scripts.reports import panels

    for pattern in (names._SAMPLED, names._PATH, panels._VALUE):
        for part in ("a", "1", "a1", "a1k", "_mean", "ppl2_z1.", "1.1"):
            text = part * (200_000 // len(part)) + "\n!"
            assert pattern.fullmatch(text) is None or pattern is panels._VALUE


def test_metrics_of_many_names_are_bounded(tmp_path):
    """As many curves as lines would take their product."""
    lines = [{"metric": f"fid{n}k_full", "kimg": n, "results": {f"fid{n}k_full": 1.0}} for n in range(1, 3001)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run = read_run(make_run(tmp_path / "run", **{"metric-fid4k_full.jsonl": text}), "run")
    assert len(run.metrics) == MAX_PANELS and any("of 3000 values of metrics" in note for note in run.notes)


def test_studies_are_bounded(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("#" * 2**16 + "\n")
    with pytest.raises(OSError, match="at most 65,536 bytes"):
        read_yaml(path)
    levels = [f"l{i}: &l{i} {{<<: [*l{i - 1}, *l{i - 1}, *l{i - 1}, *l{i - 1}]}}" for i in range(1, 20)]
    path.write_text("l0: &l0 {a: 1, b: 2}\n" + "\n".join(levels))
    with pytest.raises(CliError, match="more than 1000 keys|is no part"):  # newer releases of PyYAML take each key once
        read_yaml(path)
    path.write_text("".join(f"k{i}: 0\n" for i in range(7000)))
    with pytest.raises(CliError, match="more than 1000 keys"):
        read_yaml(path)
    variants = tuple(Variant(f"v{i}", {"data": "d"}) for i in range(11))
    with pytest.raises(CliError, match=f"expected {MAX_RUNS} runs at most"):
        combine(None, Request("train", {"data": "d"}, variants, tuple(range(1000)), ("fid4k_full",)))


def test_a_report_leaves_bombs_out(tmp_path):
    run = make_run(tmp_path / "run", **{"maps/clusters.json": "[" + "[]," * 10**6 + "[]]"})
    (run / "fakes000001.png").write_bytes(even_png(7000, 3))
    result = CliRunner().invoke(ggdr, ["report", str(run), "--out", str(tmp_path / "r.html")])
    output = " ".join(result.output.split())
    assert result.exit_code == 0 and "lists and objects" in output and "hold 7000x7000 pixels" in output, output
