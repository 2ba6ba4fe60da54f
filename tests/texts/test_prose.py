"""What tests/prose.py counts, on a page short enough to count by hand. Nothing here holds a text of the course to a number."""

import prose

PAGE = """# A heading of 6 words

| a table | 5<br>±1 |
|---|---|

### 1. How do we cut?

Into 64 squares. We cut each frame; you see one [here](picture.png). In chapter 2 there are `8 codes`: why?

   > **By hand.** 2 times 3
   > is 6.

```python
you = we
```
<!-- measured
x = y.json
-->

### 2. And then?

Then a network guesses the colors.

## References

- You, 2017
"""


def test_a_page_of_six_sentences_is_counted_as_by_hand():
    counts = prose.measured(PAGE)
    assert counts.words == 3 + 8 + 7 + 7 + 6 == 31
    assert counts.sentences == 6  # "By hand." counts as one
    assert counts.readers == 2 and counts.colons == 2  # "We", "you"; a semicolon and a colon
    assert counts.numbers == 1  # the 64; not the box, and not the 2 of "chapter 2"
    assert counts.words_with_numbers == 31 - 7 - 1
    assert counts.fragments == ("Into 64 squares.",)


def test_a_sentence_without_a_verb_is_a_fragment():
    fragments = ["One after the other.", "With frames, as many as you like.", "By self-attention: each patch asks every patch."]
    assert all(map(prose.is_fragment, [*fragments, "Not the one that came with RIGHT most often."]))
    assert not any(map(prose.is_fragment, ["We ask each patch to look around.", "Imagine a lock with four dials."]))
