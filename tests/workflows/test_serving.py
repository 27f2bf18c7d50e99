"""What the stage ``serve`` puts together."""

from __future__ import annotations

from loraloop.workflows.serving import tick_command


def test_the_tick_gets_what_the_server_got():
    """The scheduled command has the server's settings, but for what only the server has."""
    kept = ["hydra.searchpath=['file:///own']", "server.port=0", "folder=runs/a b", "+x=1", "policy=seed"]
    command = tick_command(["stage=serve", "schedule.every=4h", "++schedule.every=4h", "hydra.verbose=true", *kept])
    assert command[1:] == ["-m", "loraloop", "stage=tick", *kept]
