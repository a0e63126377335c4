"""Which models lie in the local Hugging Face cache. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quire.errors import ModelNotFoundError
from quire.hub.configs import read_json


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache.

    Args:
        name: of its repository.
        architecture: as its config.json names it; None where it names none.
        folder: of the newest snapshot that has a config.json.
        size: bytes on disk, all snapshots together.
    """

    name: str
    architecture: str | None
    folder: Path
    size: int


def cached_models(cache_dir: str | None = None) -> list[CachedModel]:
    """Models in the cache, by name; repositories without a config.json are left out.

    Args:
        cache_dir: as `EngineConfig.download_dir`; default: the Hugging Face cache.
    """
    import huggingface_hub

    try:
        repositories = huggingface_hub.scan_cache_dir(cache_dir).repos
    except huggingface_hub.errors.CacheNotFound:
        return []
    found = []
    for repository in repositories:
        if repository.repo_type != "model":
            continue
        newest = sorted(repository.revisions, key=lambda one: one.last_modified, reverse=True)
        folders = [one.snapshot_path for one in newest]
        folder = next((one for one in folders if (one / "config.json").is_file()), None)
        if folder is not None:
            architecture = _architecture(folder)
            found.append(
                CachedModel(repository.repo_id, architecture, folder, repository.size_on_disk)
            )
    return sorted(found, key=lambda model: model.name)


def _architecture(folder: Path) -> str | None:
    try:
        names = read_json(folder / "config.json").get("architectures")
    except ModelNotFoundError:
        return None
    return str(names[0]) if isinstance(names, list) and names else None
