# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files of some hundred kilobytes that would take gigabytes, or hours."""

from __future__ import annotations

import gzip
import io
import json
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
from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import FREE, RATIO, Container, DataError, load_image
from ggdr.torch_utils.untrusted.json_text import MAX_NESTED, parse_json
from tests.dataset_files import RGB, encode, write_zip
from tests.fuzzing import run_bounded
from tests.hostile.test_runs import make_run

PNG = encode(RGB[0])


def even_png(side: int, mode: int) -> bytes:
    """A black PNG; mode 2 is RGB, 6 is RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + side * {2: 3, 6: 4}[mode])
    rows = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# Pictures.


def test_even_pictures_of_many_pixels_are_refused_by_all_readers(tmp_path):
    """Below Pillow's own bound: 6000x6000 pixels in 170 kB."""
    bomb = even_png(6000, 6)
    assert len(bomb) < 200_000 and 4 * 6000**2 > FREE + RATIO * len(bomb)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(bomb)
    body = """
        import sys
        from pathlib import Path
        import numpy, PIL.Image
        from ggdr.scripts.reports.page_pictures import Pictures
        from ggdr.scripts.viewing.photographs import read_targets
        from ggdr.torch_utils.data.archives import open_source
        from ggdr.torch_utils.data.convert import Conversion
        from ggdr.torch_utils.data.image_files import DataError
        PIL.Image.init()

        def convert(path):
            for name, raw in open_source(str(path.parent)).items([0]):
                Conversion(resolution=8)(raw, name)

        # bounded
        path = Path(sys.argv[1])
        for read in (Pictures().add_file, convert, lambda path: read_targets([path], 8, 3)):
            try:
                read(path)
            except DataError as error:
                print("refused", error)
    """
    output = run_bounded(body, tmp_path / "p" / "a.png", megabytes=100)
    assert output.count("refused") == 3 and output.count("hold 6000x6000 pixels") == 3, output


def test_pictures_as_people_have_them_are_read():
    large = encode(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8), "jpeg")
    assert load_image(large, "a").size == (600, 600)
    drawn = encode(Image.new("RGB", (4000, 4000), "white"))
    assert load_image(drawn, "a").size == (4000, 4000)
    assert load_image(encode(Image.new("1", (8000, 8000))), "a").size == (8000, 8000)


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


def test_bombs_inside_of_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", b"BM" + bytes(FREE + 2**26))
    assert (tmp_path / "d.zip").stat().st_size < 200_000
    with pytest.raises(DataError, match="in the zip say that they hold"):
        Container(tmp_path / "d.zip").read("a.bmp")


# Labels.


def labels_zip(path: Path, text: bytes, num: int, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(num):
            archive.writestr(f"{i}.png", b"")
        archive.writestr(zipfile.ZipInfo("dataset.json"), text, method, 9)
    return path


def test_a_small_zip_with_much_text_is_refused_unread(tmp_path):
    text = b'{"labels": [' + b"[]," * (2**24 // 3) + b"[]]}"
    path = labels_zip(tmp_path / "d.zip", text, 400)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"dataset\.json: has 16,777,\d+ bytes, expected at most"):
        ImageDataset(path)


def test_text_of_many_lists_is_refused_before_it_is_parsed(tmp_path):
    """Parsed, `[]` takes twenty times its 3 bytes."""
    text = b'{"labels": [' + b"[]," * (2**21 // 3) + b"[]]}"
    labels_zip(tmp_path / "d.zip", text, 400)
    body = """
        import sys
        from ggdr.torch_utils.data.dataset import ImageDataset
        from ggdr.torch_utils.data.image_files import DataError
        # bounded
        try:
            ImageDataset(sys.argv[1])
        except DataError as error:
            print(error)
    """
    assert "lists and objects" in run_bounded(body, tmp_path / "d.zip", megabytes=30)


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


def test_small_archives_do_not_unpack_to_gigabytes(tmp_path):
    size = FREE + 2**26
    idx = bytes([0, 0, 8, 3]) + struct.pack(">3I", size // 1024, 32, 32) + bytes(size)
    (tmp_path / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i in range(1, 4):
            info = tarfile.TarInfo(f"data_batch_{i}")
            info.size = 2**26
            archive.addfile(info, io.BytesIO(b"\x80\x02N" + bytes(2**26 - 3)))
    (tmp_path / "cifar.tar.gz").write_bytes(gzip.compress(file.getvalue()))
    file.close()
    body = """
        import sys
        from pathlib import Path
        from ggdr.torch_utils.data.archives import open_source
        from ggdr.torch_utils.data.image_files import DataError
        # bounded
        for path in Path(sys.argv[1]).iterdir():
            assert path.stat().st_size < 300_000
            try:
                open_source(str(path))
            except DataError as error:
                print("refused", error)
    """
    output = run_bounded(body, tmp_path, megabytes=300)
    assert output.count("refused") == 2 and "MemoryError" not in output, output


# Time.


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
    with pytest.raises(CliError, match="more than 1000 keys"):
        read_yaml(path)
    path.write_text("".join(f"k{i}: 0\n" for i in range(7000)))
    with pytest.raises(CliError, match="more than 1000 keys"):
        read_yaml(path)
    variants = tuple(Variant(f"v{i}", {"data": "d"}) for i in range(11))
    with pytest.raises(CliError, match=f"expected {MAX_RUNS} runs at most"):
        combine(None, Request("train", {"data": "d"}, variants, tuple(range(1000)), ("fid4k_full",)))


def test_a_report_leaves_bombs_out(tmp_path):
    run = make_run(tmp_path / "run", **{"maps/clusters.json": "[" + "[]," * 10**6 + "[]]"})
    (run / "fakes000001.png").write_bytes(even_png(6000, 2))
    result = CliRunner().invoke(ggdr, ["report", str(run), "--out", str(tmp_path / "r.html")])
    output = " ".join(result.output.split())
    assert result.exit_code == 0 and "lists and objects" in output and "hold 6000x6000 pixels" in output, output
