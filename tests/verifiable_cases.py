"""Of every kind of check: responses that satisfy it and that don't, and the judgment in full. docs/verifiable.md shows
them (`verifiable_table.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A kind with parameters; `judgment` is what is said of the first bad response."""

    kind: str
    params: dict[str, Any]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    judgment: str


_PARTS = "Part 1\nIt is blue.\nPart 2\nIt is deep."
CASES = (
    Case(
        "min_words",
        {"words": 5},
        ("One two three four five.", "1. a b c d e"),
        ("The sea is blue.", "- - - - -", "1. a\n2. b\n3. c"),
        'After 4 words the response stops, at "The sea is blue". The instruction wants at least 5.',
    ),
    Case(
        "max_words",
        {"words": 4},
        ("The sea is blue.", "- - - - - a", "1. a\n2. b\n3. c\n4. d"),
        ("The sea is blue and deep.", "a—b c d e"),
        'The response has 6 words, 2 more than allowed (at most 4); from "and deep" on it is too long.',
    ),
    Case(
        "word_range",
        {"low": 3, "high": 4},
        ("a b c", "a b c d"),
        ("The sea is blue and deep.", "a b"),
        'With 6 words the response breaks the limit (3 to 4); word 5 and what follows, "and deep", are over it.',
    ),
    Case(
        "exact_words",
        {"words": 3},
        ("Deep Blue Sea",),
        ("The Deep Blue Sea", "Blue Sea"),
        'The response has 4 words, 1 more than allowed (exactly 3); from "Sea" on it is too long.',
    ),
    Case(
        "sentence_count",
        {"relation": "exactly", "count": 2},
        ("Dr. Lee swims. He is fast!", "One\nTwo", "**The Sea**\nIt is big... So big."),
        ("The sea is blue. It is deep. Fish live there.", "Only one, e.g. this."),
        'The response has 3 sentences, but the instruction asks for exactly 2; sentence 3, "Fish live '
        'there.", is already too many.',
    ),
    Case(
        "paragraph_count",
        {"count": 2},
        ("First.\n\nSecond.", "First.\n \n\nSecond\nstill."),
        ("The sea is blue.\nIt is deep.", "a\n\nb\n\nc"),
        'The response has 1 paragraph, but 2 paragraphs with blank lines between them were asked for; '
        'it begins "The sea is blue. ..."',
    ),
    Case(
        "include_words",
        {"words": ["salt", "waves"]},
        ("Salt and WAVES.",),
        ("The salty waves are high.", "Nothing of it."),
        'The response should contain "salt", but never does.',
    ),
    Case(
        "forbidden_words",
        {"words": ["blue", "deep"]},
        ("Blueish deepness.",),
        ("The sea is blue. It is calm.", "Deep."),
        'The word "blue" was to be avoided, but it stands in "The sea is blue."',
    ),
    Case(
        "word_frequency",
        {"word": "fish", "relation": "exactly", "count": 2},
        ("Fish eat fish.",),
        ("A fish is no bird.", "fish fish fish"),
        'The response should use "fish" exactly twice; it occurs once.',
    ),
    Case(
        "letter_frequency",
        {"letter": "w", "relation": "at least", "count": 3},
        ("Waves were wild.",),
        ("Waves are high.", ""),
        'The letter "w" occurs once in the response, but at least 3 times was asked for.',
    ),
    Case(
        "forbidden_letter",
        {"letter": "e"},
        ("A Dog In Rain",),
        ("The Lost Dog and Me", "E"),
        'The word "The" has the letter "e", and the same is true of "Me"; the instruction asks for '
        'words without "e".',
    ),
    Case(
        "max_word_length",
        {"letters": 5},
        ("A Lost Dog", "It's fine"),
        ("My Wonderful Dog Returns", "abcdef"),
        '2 words of the response break the rule to use words of at most 5 letters; the first is "Wonderful".',
    ),
    Case(
        "every_word_starts_with",
        {"letter": "s"},
        ("Seven silly Swans", '"Sun" sets'),
        ("Seven Silly Old Swans", "a"),
        'Only words that begin with "s" should be used, but "Old" does not begin with "s".',
    ),
    Case(
        "distinct_sentences",
        {},
        ("It is blue. It is deep.", ""),
        ("It is blue. It is deep. It is blue.", "Yes!\nyes."),
        'Sentence 3, "It is blue.", only repeats sentence 1.',
    ),
    Case(
        "all_lowercase",
        {},
        ("the sea, 7 times.", "über"),
        ("The sea is blue. I like it.", "A"),
        'All letters should be lowercase. The response breaks this rule in 2 words, first in "The" '
        '(word 1), which has a capital letter.',
    ),
    Case(
        "all_uppercase",
        {},
        ("THE SEA, 7 TIMES.", "ÜBER"),
        ("THE sea IS BLUE.", "a"),
        'All letters should be capitals; the response breaks this rule in "sea" (word 2), which is not '
        'in capitals.',
    ),
    Case(
        "title_case",
        {},
        ("The Old Man and the Sea", "7 Days"),
        ("The old Man and the sea", "the Sea"),
        'The response should be in title case, but "old" (word 2) begins with a small letter, and it is '
        'the first of 2 words.',
    ),
    Case(
        "capital_words",
        {"relation": "at least", "count": 2},
        ("It is VERY, VERY cold.",),
        ("It is VERY cold. I am.", "A B C"),
        'The response has 1 word in all capitals, but the instruction asks for at least 2.',
    ),
    Case(
        "no_commas",
        {},
        ("Red and blue; green.",),
        ("Red, blue, and green.", ","),
        'There should be no commas, but "Red," (word 1) has a comma, and it is the first of 2 places.',
    ),
    Case(
        "no_digits",
        {},
        ("Seven days", "x²"),
        ("It opened in 1923.", "1. One"),
        'Digits should not be used, but "1923." (word 4) has a digit.',
    ),
    Case(
        "no_exclamation_marks",
        {},
        ("Buy now.",),
        ("Buy now! Save more!", "!"),
        'No exclamation mark is allowed. The response breaks this rule in 2 places, first in "now!" '
        '(word 2), which has an exclamation mark.',
    ),
    Case(
        "starts_with",
        {"phrase": "Of course."},
        ("Of course. It is blue.", "\n Of course."),
        ("The sea is blue.", "of course.", "Yes. Of course."),
        'The first words should be "Of course." and are "The sea is blue."',
    ),
    Case(
        "ends_with",
        {"phrase": "That is all."},
        ("It is blue. That is all.\n",),
        ("It is blue. That is all. Bye!", "It is blue.", "that is all."),
        'Nothing should follow "That is all.", but "Bye!" does.',
    ),
    Case(
        "in_double_quotes",
        {},
        ('"The sea."', "“The sea.”\n"),
        ("The sea is blue.", '"The sea.', 'The sea."', '"'),
        'The answer should stand in double quotation marks, but it begins "The sea is blue." without '
        'one and has none at the end.',
    ),
    Case(
        "postscript",
        {"marker": "P.S."},
        ("It rains.\n\nP.S. Bring boots.",),
        ("It rains.\nSee you soon.", "It rains. P.S. Boots.", "It rains.\nP.S.", "p.s. boots"),
        'The postscript is missing: no line begins with "P.S.", and the response ends with "See you soon."',
    ),
    Case(
        "title_in_angles",
        {},
        ("<<The Sea>>\nIt is blue.",),
        ("The Sea\nIt is blue.", "It is blue.\n<<The Sea>>", "<<>>\nIt", "<<The Sea>> It is blue."),
        'The first line should be a title in double angular brackets, but it is "The Sea".',
    ),
    Case(
        "repeat_request",
        {"request": "Describe the sea."},
        ("Describe the sea.\nIt is blue.", '"Describe the sea." It is.'),
        ("The sea is blue.", "Describe the sea.", "describe the sea. Blue."),
        'The response should first repeat "Describe the sea." word for word, but it begins with "The '
        'sea is blue."',
    ),
    Case(
        "two_responses",
        {},
        ("Blue Sea\n******\nDeep Sea",),
        ("Blue Sea", "Blue\n******\n blue", "a\n******\nb\n******\nc", "******\nb", "a ****** b"),
        'No line ****** parts the response, which begins "Blue Sea", into two.',
    ),
    Case(
        "bullet_count",
        {"count": 2},
        ("Fruits:\n- apple\n* pear", "• a\n+ b"),
        ("- apple\n- pear\n- plum", "- apple", "apple\npear", "-apple\n-pear"),
        'There should be exactly 2 bullet points; the response has 3, and the first one too many is "- plum".',
    ),
    Case(
        "numbered_list",
        {"count": 2},
        ("1. apple\n2. pear", "Fruits:\n\n1) a\n2) b"),
        ("1. apple", "1. a\n2. b\n3. c", "1. a\n3. b", "apple"),
        'The response has only 1 numbered item where 2 were asked for; the last one is "1. apple".',
    ),
    Case(
        "one_per_line",
        {"count": 2},
        ("apple\npear", "apple\n\npear\n"),
        ("- apple\n- pear", "apple", "apple\npear\nplum", "1. a\n2. b"),
        'The items should stand on their lines without bullets or numbers, but line 1 is "- apple".',
    ),
    Case(
        "sections",
        {"word": "Part", "count": 2},
        (_PARTS, "## Part 1: Blue\n**Part 2** Deep"),
        ("Part 1\nIt is blue.", "Part 1\nPart 2\nx", "Part 2\nx\nPart 1\ny", _PARTS + "\nPart 3\nz", "Blue"),
        'The response has 1 of the 2 headers at the start of a line: "Part 2" should still come.',
    ),
    Case(
        "highlights",
        {"count": 2},
        ("It is *blue* and **deep**.", "* a *b* and *c d*"),
        ("It is *blue* and deep.", "2 * 3 * 4", "******"),
        'Only 1 part of the response is highlighted with asterisks, the last being "*blue*"; at least 2 '
        'were asked for.',
    ),
    Case(
        "placeholders",
        {"count": 2},
        ("Dear [name], come on [date].",),
        ("Dear [name], come soon.", "[] [ ]", "Dear Ann"),
        'The response has only 1 placeholder, the last one "[name]"; at least 2 such as [name] were asked for.',
    ),
    Case(
        "plain_text",
        {},
        ("It is blue. 2 * 3 = 6.", "a - b"),
        ("It is **blue** and deep.", "# Sea", "- blue", "```\nx\n```", "`x`"),
        'The text should be plain, but "**blue**" (word 3) is marked with Markdown.',
    ),
    Case(
        "json_object",
        {"keys": ["name", "age"]},
        ('{"name": "Max", "age": 3}', ' {\n"age": null, "name": [], "x": 1}\n'),
        (
            '{"name": "Max", "colour": "red"}',
            'Max is 3.',
            '{"name": "Max", "age": 3',
            '["name", "age"]',
            '{"name": 1, "age": 2} Done.',
            "{'name': 1, 'age': 2}",
            '{"name": NaN, "age": 2}',
            '{}',
        ),
        'The key "age" is missing from the JSON object; it has "name" and "colour".',
    ),
    Case(
        "json_list",
        {"count": 2},
        ('["apple", "pear"]',),
        ('["apple", "pear", "plum"]', "apple, pear", '["apple", 2]', '{"a": "b"}', '["apple" "pear"]', "0"),
        'The JSON array "["apple", "pear", "plum"]" has 3 items; exactly 2 should be in it.',
    ),
    Case(
        "comma_list",
        {"count": 3},
        ("apple, pear, plum", "A, b , c."),
        ("apple, pear", "a\nb\nc", "I like the very red apple, pear, plum", "a, b, c, d"),
        'Exactly 3 items separated by commas were asked for; "apple, pear" has 2.',
    ),
    Case(
        "one_of",
        {"options": ["yes", "no"], "answer": "yes"},
        ("Yes.", "YES", '"yes"'),
        ("No.", "Yes, it is.", "maybe"),
        'The right answer is "yes", not "No."',
    ),
    Case(
        "hex_colour",
        {},
        ("#1A2b3C", " #000000\n"),
        ("The colour is #00AAFF.", "blue", "#12345", "#GGGGGG"),
        'The code #00AAFF has the right form, but it should stand alone; the response is "The colour is '
        '#00AAFF."',
    ),
    Case(
        "arithmetic",
        {"expression": "12 + 7"},
        ("19", "19.", " **19** "),
        ("21", "12 + 7 = 19", "nineteen", "190", "-19", "1.9"),
        '12 + 7 is 19, but the response is "21".',
    ),
    Case(
        "letter_count",
        {"word": "cheese", "letter": "e"},
        ("3", "3."),
        ("2", "There are 3.", "three"),
        '"cheese" has the letter "e" 3 times, but the response is "2".',
    ),
    Case(
        "reversed_word",
        {"word": "planet"},
        ("tenalp", "Tenalp."),
        ("planet", 'It is "tenalp".', "tenal p"),
        '"planet" backwards is "tenalp", but the response is "planet".',
    ),
    Case(
        "spelled_word",
        {"word": "cat"},
        ("c-a-t", "C-A-T"),
        ("c a t", "cat", "It is c-a-t"),
        '"cat" with hyphens is "c-a-t", but the response is "c a t".',
    ),
    Case(
        "date_form",
        {"date": "2021-03-05", "form": "YYYY-MM-DD"},
        ("2021-03-05", "2021-03-05."),
        ("05-03-2021", "The date is 2021-03-05", "2021-3-5"),
        '5 March 2021 in the form YYYY-MM-DD is "2021-03-05", but the response is "05-03-2021".',
    ),
    Case(
        "sorted_list",
        {"items": ["9", "30", "4"], "order": "ascending"},
        ("4, 9, 30", "4,9,30."),
        ("4, 30, 9", "4, 9", "4, 9, 30, 31", "4\n9\n30", "four"),
        'Where "9" should come, as item 2, the response has "30".',
    ),
    Case(
        "number_sequence",
        {"first": 10, "last": 6, "step": -2},
        ("10, 8, 6",),
        ("10, 9, 8", "10, 8", "10, 8, 6, 4", "10 8 6"),
        'Item 2 of the list should be "8", but it is "9".',
    ),
    Case(
        "palindrome",
        {"letters": 5},
        ("level", "Never odd or even."),
        ("lever", "abcba dd", "noon", ""),
        'The response should read the same backwards, but in "lever" the first character from the front '
        'is "l", from the back "r".',
    ),
)
