"""What a supervisor knows of the step that it watches: what decides its outcome, and how far its reading is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flansible import wire
from flansible.worker.colour_parser import ColourSplitter, choose_mark
from flansible.worker.confinement_hints import ConfinementHints
from flansible.worker.keeper_handle import KeeperHandle
from flansible.worker.key_agent import KeyAgent
from flansible.worker.outcome import Observed
from flansible.worker.step_descriptors import StepDescriptors


@dataclass(kw_only=True)
class StepState(Observed):
    """What the supervisor keeps of the step it watches, besides what decides its outcome."""

    ends: StepDescriptors
    open_pipes: set[int] = field(init=False)  # whose end was not read yet
    channel_frames: wire.FrameReader = field(default_factory=wire.FrameReader)  # of the keeper
    event_frames: wire.FrameReader = field(default_factory=wire.FrameReader)  # of the run
    give_up_at: float = math.inf  # when a keeper that does not answer an order loses its channel
    channel_ended: bool = False
    unsent: bytes = b""  # what the channel did not take yet: a user's code can stop the process that reads it
    start_by: float = math.inf  # when the fork server must have started the run
    keeper: KeeperHandle | None = None
    agent: KeyAgent | None = None  # holds the ssh key of a credential
    sent_stop_at: float = 0.0  # the deadline that the keeper has
    lease_frame_at: float = 0.0  # when the next one may be sent
    is_refused: bool = False
    is_listing: bool = False  # plan frames of any other run are ignored: a user's code may write into the pipe
    awaits_key: bool = False  # the run decrypts a private key, which must be masked
    ahead_bytes: int = 0  # how much of the output pipe may still be read for the marks of the events just read
    colours: ColourSplitter = field(default_factory=lambda: ColourSplitter(choose_mark(), 0))
    hints: ConfinementHints | None = None  # of a sandboxed run, or of a project's

    def __post_init__(self) -> None:
        self.open_pipes = {self.ends.output, self.ends.events}
