"""Right answers of the laboratory's world, found another way than the world itself finds them."""

from __future__ import annotations


def expected(instruction: str) -> list[str]:
    """The answer to an instruction, from its words alone."""
    task, *words = instruction.split()
    if task == "sort":
        return sorted(words, key=int)
    if task == "descend":
        return sorted(words, key=lambda digit: -int(digit))
    if task == "reverse":
        return list(reversed(words))
    if task == "copy":
        return words
    if task == "add":
        return [str((int(words[0]) + int(digit)) % 10) for digit in words[2:]]
    if task == "number":
        return [str("abcdefgh".index(letter) + 1) for letter in words]
    if task == "next":
        return [chr(ord(letter) + 1) for letter in words]
    if task == "replace":
        return [words[2] if digit == words[0] else digit for digit in words[4:]]
    assert task == "join"
    return list(f"{words[-1]}".join(words[:-2]))
