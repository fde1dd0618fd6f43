# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from __future__ import annotations

import pytest

from ggdr.torch_utils.atomic_write import atomic_write


def test_an_interrupt_while_writing_leaves_the_last_good_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"good")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 1
