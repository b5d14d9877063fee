import pytest

from canvas.captioner.training import END, train_tokenizer

CAPTIONS = ["red t-shirt, in a forest", "apple juice, on a city square", "in a forest"] * 4


def test_texts_come_back_exactly_even_unknown_ones():
    tokenizer = train_tokenizer(CAPTIONS, 320)
    for text in [*CAPTIONS[:3], "Ölfarbe  №5 🎨, auf Weiß"]:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_every_text_ends_and_padding_is_masked():
    tokenizer = train_tokenizer(CAPTIONS, 320)
    tokens = tokenizer(CAPTIONS[1:3], padding=True)
    assert tokens.input_ids[0][-1] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END)
    length = sum(tokens.attention_mask[1])
    assert tokens.input_ids[1][length - 1] == tokenizer.eos_token_id
    assert set(tokens.input_ids[1][length:]) == {tokenizer.pad_token_id}


def test_known_captions_take_few_tokens_and_the_vocabulary_is_kept():
    tokenizer = train_tokenizer(CAPTIONS, 320)
    assert len(tokenizer(CAPTIONS[0]).input_ids) < len(CAPTIONS[0]) / 2
    assert len(tokenizer) <= 320


def test_the_same_captions_give_the_same_tokenizer():
    first, second = (train_tokenizer(CAPTIONS, 320).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_a_vocabulary_without_room_for_words_is_refused():
    with pytest.raises(ValueError, match="vocabulary is 200"):
        train_tokenizer(CAPTIONS, 200)
