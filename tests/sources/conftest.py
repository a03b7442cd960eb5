import pytest


@pytest.fixture(params=[8192, 2], ids=["one piece", "pieces"])
def _pieces(request, monkeypatch):
    """Read tables in one piece, and in pieces of two rows."""
    for module in ("columns", "table_files"):
        monkeypatch.setattr(f"fitstream.sources.{module}.CHUNK_ROWS", request.param)
