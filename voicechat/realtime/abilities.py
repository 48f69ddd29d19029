"""What a server takes of a history, and how much of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an endpoint takes.  Source: reference, sections 1.6 and 1.7."""

    context_tokens: int = 32_768
    output_tokens: int = 4_096
    """Of the context, what is kept for an answer."""
    takes_assistant: bool = True
    """Items of the assistant's; without them the history is packed into one message."""
    assistant_part: str = "output_text"
    """What the parts of such items are called."""
    takes_system: bool = True
    """Items of the system's; without them the user says what we add."""

    @classmethod
    def of(cls, model: str) -> "Abilities":
        """Those of a model of OpenAI's; of any other, what all of them have."""
        return cls(128_000, 32_000) if model.startswith("gpt-realtime-2") else cls()

    def budget(self, instructions: str) -> int:
        """The tokens that a history may have by default: a sixth is left for what comes."""
        return (self.context_tokens - self.output_tokens) * 5 // 6 - tokens_of(instructions)


def tokens_of(text: str) -> int:
    """How many tokens these words take, rather too many than too few.

    English has more than four letters a token; of other alphabets, a letter has two or three bytes
    and takes a token at the most.
    """
    if text.isascii():
        return -(-len(text) // 4)
    letters = sum(map(str.isascii, text))
    return -(-letters // 4) + -(-(len(text.encode("utf-8", "replace")) - letters) // 3)
