"""Cards and golden predictions under a name that is not read: without a word, answers would be of unscaled inputs.

The answers depend on a card. So what is one by its name, or holds one, refuses the model as a broken card does; of what
may be anything, and of golden predictions, on which no answer depends, the log tells.
"""

import logging

from lstm_serve.errors import UnreadableFile
from lstm_serve.formats.text import printable
from lstm_serve.loading.sidecars import card
from lstm_serve.model.files import ModelFiles, look_alikes

log = logging.getLogger(__name__)


def check(files: ModelFiles) -> None:
    """Raise UnreadableFile where a card was misnamed; warn where one, or golden predictions, may have been."""
    cards = look_alikes(files, files.card)
    for other in cards:
        if other.named_after or card.is_card(other.path):
            raise UnreadableFile(
                f"there is {other.name}, a card that is not read under this name. Call it {files.card.name} if it is "
                "of this model, or take it away"
            )
    others = look_alikes(files, files.golden)
    for meant, what, found in ((files.card, "a card", cards), (files.golden, "golden predictions", others)):
        for other in found:
            log.warning(
                "there is %s, which is not read: if it is %s of %s, call it %s",
                *map(printable, (other.name, what, files.model.name, meant.name)),
            )
