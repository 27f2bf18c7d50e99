"""The records' few rules."""

import hashlib

from loraloop.records import Rollout


def rollout(name: str, share: float) -> Rollout:
    return Rollout(id=name, role="validator", model="m", stable=1, canary=2, share=share, began="2026-01-01T00:00:00Z")


def test_a_conversation_is_assigned_by_the_hash_of_rollout_and_conversation():
    """The first 64 bits of sha256("rollout|conversation") below the share's part of 2**64 mean the canary."""
    for number in range(200):
        bits = hashlib.sha256(f"r1|{number}".encode()).hexdigest()[:16]
        assert rollout("r1", 0.15).version(str(number)) == (2 if int(bits, 16) / 2**64 < 0.15 else 1)


def test_the_canary_gets_its_share_of_conversations():
    """Of 20,000 conversations the canary answers its share within five standard deviations."""
    got = sum(rollout("r1", 0.15).version(str(number)) == 2 for number in range(20_000))
    assert abs(got - 3_000) < 5 * (20_000 * 0.15 * 0.85) ** 0.5


def test_the_ends_of_the_share_are_all_or_nothing():
    """A share of 0 gives the canary nobody, a share of 1 everybody."""
    assert {rollout("r", 0).version(str(number)) for number in range(500)} == {1}
    assert {rollout("r", 1).version(str(number)) for number in range(500)} == {2}


def test_another_rollout_draws_other_conversations():
    """Who is drawn in one rollout is not who is drawn in the next."""
    drawn = [{n for n in range(2_000) if rollout(name, 0.15).version(str(n)) == 2} for name in ("r1", "r2")]
    assert len(drawn[0] & drawn[1]) < 100
