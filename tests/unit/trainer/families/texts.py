# ruff: noqa: RUF001
"""Text that tokenizers are trained on, and texts that are hard to split."""

SENTENCES = (
    "What is the colour of the red fox? It's red, isn't it?",
    "The blue whale eats 4000 kilograms of krill a day; that's 1,234,567 pieces or more.",
    "Who painted my old house in 1998? I'll ask; they've said they'd come, and we're waiting.",
    "I'M SURE SHE'LL SAY WE'VE SEEN THAT THEY'RE LATE. DON'T!",
    "def answer(question):\n    if question is None:\n        return {'text': \"\", 'score': 0.5}\n    return 42\n",
    'for (int i = 0; i < 10; i++) {\n\tprintf("%d\\n", i);\n}\r\n',
    "Die Straße ist größer als die Brücke; où est le café près de l'hôtel?",
    "天空是蓝色的，大海也是蓝色的。今天是2024年3月15日。",
    "東京の天気はどうですか。カタカナとひらがな。",
    "한국어 문장도 하나 있습니다. 오늘은 날씨가 좋습니다.",
    "السماء زرقاء والبحر أزرق أيضا. كم عمرك؟",
    "Привет, как дела? Небо голубое и море тоже голубое.",
    "नमस्ते, आप कैसे हैं? आकाश नीला है।",
    "\n\n\n1. First\n2. Second\n\n- a\n- b\n\n\n",
    "(a + b) * c = 12.5 % | x^2 ~ $y <= #3 && !z ... --- === <<>> ``` ''' \"\"\"",
    "🙂 👍 👩‍👩‍👧 🇩🇪 emoji ☃",
)
CORPUS = tuple(sentence for sentence in SENTENCES for _ in range(3))

HARD_TEXTS = {
    "digits": "1 12 123 1234 12345 1,234.56 3.14e-10 0x1F 2024-03-15 ٣٤٥ ½ ² Ⅷ a1b22c333",
    "newlines": "\n\n1\n\n\n2\r\n\r\n3\r4 \n 5\n \n6\n\n",
    "white_space": "  a   b\tc\t\td \t e    \n\tf\n  g     ",
    "other_spaces": "a\u00a0b \u00a0 c\u3000d\u2003e\u200bf\u2028g\u0085h\ufeffi",
    "leading": " leading",
    "leading_two": "   three before",
    "trailing": "trailing ",
    "trailing_newline": "a line\n",
    "only_spaces": "     ",
    "contractions": "I'm you're he's we've they'll I'd don't can't IT'S I'M YOU'RE WE'VE THEY'LL He'S 'tis ''s o'clock",
    "chinese": "天空是蓝色的，2024年3月15日。 你好 hello世界123",
    "japanese": "東京の天気はどうですか。カタカナ、ひらがな「引用」ー",
    "korean": "한국어 문장입니다. ㄱㄴㄷ",
    "arabic": "السماء زرقاء، كم عمرك؟ ١٢٣",
    "hindi": "नमस्ते, आप कैसे हैं? क्षत्रिय।",
    "thai": "สวัสดีครับ วันนี้อากาศดี",
    "emoji": "🙂👍🏽 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ ☃ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "letters": "Straße Größe ÀÉÎ œuvre İstanbul ıǅ ʰ ª ǈ ß ﬁ Ωμέγα Ёжик",
    "code": 'def f(x):\n    return {\'a\': [1, 2.5], "b": x**2} # x\n\tif a != b && c || !d: <tag attr="v"/>\n\n\n}',
    "signs": "!!! ??? ... --- === <<< >>> ((( ))) [[{}]] @#$%^&*_+`~|\\/ «quotes» “curly” ‘single’ …—–",
    "mixed_words": "camelCase PascalCase snake_case SCREAMING_CASE kebab-case HTTPServer iPhone15Pro v1.2.3-rc4",
    "address": "https://example.com/path?query=1&other=%20#part C:\\Users\\name ~/file.txt",
    "control": "a\x00b\x07c\x1bd\x7fe",
    "long": "a" * 40 + " " * 40 + "b" * 8 + "\n" * 11 + "c",
}
DECOMPOSED = "e\u0301 n\u0303 A\u030a o\u0308 Cafe\u0301 \u0928\u093c \u1100\u1161\u11a8 \u212b"
"""Combining marks that Unicode's form NFC joins to one character."""
