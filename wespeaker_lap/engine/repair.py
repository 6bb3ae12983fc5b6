"""Verifying a feature store, and computing again what is damaged in it."""

import logging
from pathlib import Path

from wespeaker_lap.data.copies import read_copies
from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.segments import read_segments
from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.entries import Entries, estimate_bytes
from wespeaker_lap.engine.extract import check_disk, plan_shards
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import FeatureWriter, index_store, shard_done, start_store
from wespeaker_lap.io.feats_verify import Finding, find_damage, verify_store
from wespeaker_lap.io.feats_writer import shard_path
from wespeaker_lap.io.identity import read_identity
from wespeaker_lap.io.shard_index import IndexedEntry, how_to_mend, index_path, read_index

NO_SOURCES = CopySources()


def check_feats(directory: str | Path, frontend: FrozenSSL | None = None,
                data: DataDir | None = None, world: World | None = None,
                sources: CopySources = NO_SOURCES) -> tuple[list[str], int]:
    """Verify a store and, given the encoder, the data and the processes, repair it.

    Args:
        directory: of the store.
        frontend: as for `extract_feats`; None verifies only.
        data: the audited data directory that the store was extracted from.
        world: this process among all.
        sources: the tables that the copies of the store were made from.

    Returns:
        What to print, and the exit status: 0 for a store that is, or is again, whole.

    Raises:
        FileNotFoundError, ValueError, OSError: there is no store, or see `repair_feats`.
    """
    if frontend is None:
        found = verify_store(directory)
    else:
        found = repair_feats(frontend, data, directory, world, sources)
    lines = [str(finding) for finding in found]
    if not found:
        return [f"{directory}: all as it was written"], 0
    if frontend is None:
        return [*lines, f"{directory}: {len(found)} findings; {how_to_mend(directory)}"], 1
    return [*lines, f"{directory}: {len(found)} findings, repaired"], 0


def repair_feats(frontend: FrozenSSL, data: DataDir, directory: str | Path, world: World,
                 sources: CopySources = NO_SOURCES) -> list[Finding]:
    """Write the damaged shards of a store again: good entries copied, the others computed.

    An entry is computed in the batch that extraction computed it in, so the store becomes what an
    undisturbed extraction would have written: byte for byte, on the same kind of machine with the
    same number of threads in a process; to rounding elsewhere. A shard without a readable index is
    computed as a whole, because nothing vouches for its bytes.

    Args:
        frontend: the encoder, on the world's device.
        data: the audited data directory that the store was extracted from.
        directory: of the store.
        world: this process among all.
        sources: the tables that the copies of the store were made from.

    Returns:
        What was found before the repair.

    Raises:
        ValueError: the store is of another encoder, of other data or was cut into other shards;
            an utterance that fails (named).
        OSError: the disk has no room for the largest shard.
    """
    directory, stored = Path(directory), read_identity(directory)
    codec, entries = stored["codec"], _restore_entries(frontend, data, stored, sources, world)
    identity = start_store(directory, entries.identity(), codec)
    sizes = estimate_bytes(frontend, data, codec, entries.segments, entries.copies)
    shards = plan_shards(sizes)
    # One process's findings for all: another may look when a first shard is already repaired.
    found = world.gather(verify_store(directory) if world.is_main else [])[0]
    bad = world.gather(_choose_shards(directory, entries, shards, found))[0]
    check_disk(directory, world.size * max([sum(map(sizes.get, shards[n])) for n in bad] or [0]))
    for number in bad[world.rank::world.size]:
        with FeatureWriter(directory, identity, codec, number) as writer:
            _refill_shard(writer, entries, shards[number])
    world.barrier()
    if world.is_main and found:
        _tidy(directory, found, len(shards))
    return found


def _restore_entries(frontend: FrozenSSL, data: DataDir, stored: dict,
                     sources: CopySources, world: World) -> Entries:
    """What the store consists of, by its own word; whether that fits the data is seen later."""
    copies = read_copies(stored)
    augmentation = stored.get("augmentation")
    seed = augmentation.get("seed", 0) if isinstance(augmentation, dict) else 0
    augmenter = load_augmenter(copies, seed, data, sources, frontend.sample_rate)
    precision = choose_precision(stored.get("precision", "float32"), world.device)
    return Entries(frontend, data, read_segments(stored), augmenter, precision)


def _tidy(directory: Path, found: list[Finding], num_shards: int) -> None:
    """Remove what interrupted runs left, and write the joined tables again."""
    for finding in found:
        if finding.path.name.startswith("."):
            finding.path.unlink(missing_ok=True)
    index_store(directory, num_shards)


def _choose_shards(directory: Path, entries: Entries, shards: list[list[str]],
                   found: list[Finding]) -> list[int]:
    """The shards to write again."""
    bad = {finding.shard for finding in found if finding.shard is not None}
    bad |= {n for n in range(len(shards)) if not shard_done(directory, n)}
    foreign = sorted(bad - set(range(len(shards))))
    for number in set(range(len(shards))) - bad:
        _, indexed = read_index(index_path(shard_path(directory, number)))
        there = sorted(entry.utt for entry in indexed)
        foreign += [number] * (there != entries.ids(shards[number]))
    if foreign:
        raise ValueError(f"{shard_path(directory, foreign[0])}: not of the {len(shards)} shards "
                         f"that this version cuts the set into; remove {directory} and run stage 2")
    return sorted(bad)


def _refill_shard(writer: FeatureWriter, entries: Entries, utts: list[str]) -> None:
    """Write all entries in the order of extraction, and compute those that are not good."""
    num_computed, indexed = 0, _load_indexed(writer)
    for part in entries.plan_all_passes(utts):
        kept = {name: _read_good(writer, indexed[name]) for name in part.ids if name in indexed}
        feats = {}
        if any(kept.get(name) is None for name in part.ids):
            # All of the pass: its padding may change the last bit of a number.
            feats = dict(entries.encode(part, entries.load_pass(part)))
        for name in part.ids:
            if kept.get(name) is None:
                writer.write(name, feats[name])
                num_computed += 1
            else:
                writer.write_entry(name, kept[name], indexed[name].num_frames)
    logging.info("%s: %d of %d utterances computed again", writer.ark, num_computed,
                 len(entries.ids(utts)))


def _load_indexed(writer: FeatureWriter) -> dict[str, IndexedEntry]:
    """What is said of the shard's entries; nothing where its index or its ark is no help."""
    try:
        shape, entries = read_index(index_path(writer.ark))
    except (FileNotFoundError, ValueError):
        return {}
    if shape != (writer.identity["num_layers"], writer.identity["dim"]) or not writer.ark.is_file():
        return {}
    return {entry.utt: entry for entry in entries}


def _read_good(writer: FeatureWriter, entry: IndexedEntry) -> bytes | None:
    """The bytes of an entry as it stands in the ark; None where they are not what was written."""
    shape = writer.identity["num_layers"], writer.identity["dim"]
    with open(writer.ark, "rb") as file:
        if find_damage(file, writer.codec, shape, entry):
            return None
        file.seek(entry.offset)
        return file.read(entry.size)
