"""How an answer may be explained, by name: what the command and the API let choose from."""

from typing import Literal

Grain = Literal["step", "cell"]
Method = Literal["integrated-gradients", "occlusion"]
