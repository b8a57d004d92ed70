"""What programs make of a secret is masked: encoders chosen at random, nested up to three deep, cut anywhere."""

from __future__ import annotations

import base64
import html
import json
import os
import random
import re
import shlex
import subprocess
import textwrap
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from flansible.models import Secrets
from flansible.worker.masking import Masker
from tests.helpers.waiting import require_program

tried = settings(
    max_examples=int(os.environ.get("FUZZ", "200")),
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
Encoder = Callable[[str], str]


def printf_q(text: str) -> str:
    """Quotes as bash's `printf %q` does."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        return set_x(text)
    return re.sub(r"([^A-Za-z0-9_./:=@%+\x80-\U0010ffff-])", r"\\\1", text)


def printf_q_in_c_locale(text: str) -> str:
    """Quotes as bash's `printf %q` does under LC_ALL=C: octal bytes."""
    if text.isascii():
        return printf_q(text)
    return "$'" + "".join(_octal(byte) for byte in text.encode()) + "'"


def _octal(byte: int) -> str:
    return f"\\{byte:03o}" if byte < 32 or byte > 126 else re.sub(r"(['\\])", r"\\\1", chr(byte))


def set_x(text: str) -> str:
    """Quotes as bash's `set -x` does."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        return "$'" + re.sub(r"(['\\])", r"\\\1", text).replace("\n", "\\n").replace("\t", "\\t") + "'"
    return "'" + text.replace("'", "'\\''") + "'"


def dumped(style: str | None, width: int) -> Encoder:
    return lambda text: yaml.safe_dump({"value": text}, default_style=style, width=width, allow_unicode=width != 80)


def base64_of(before: str, after: str, width: int | None, *, is_for_urls: bool = False) -> Encoder:
    encode = base64.urlsafe_b64encode if is_for_urls else base64.b64encode

    def encoder(text: str) -> str:
        encoded = encode((before + text + after).encode()).decode()
        return encoded if width is None else "\n".join(textwrap.wrap(encoded, width)) + "\n"

    return encoder


ENCODERS: dict[str, Encoder] = {
    "strip": str.strip,
    "shlex.quote": shlex.quote,
    "printf %q": printf_q,
    "printf %q, LC_ALL=C": printf_q_in_c_locale,
    "set -x": set_x,
    "JSON": json.dumps,
    "JSON, Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON, PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON, Go": lambda text: json.dumps(text).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "YAML": dumped(None, 80),
    "YAML, narrow": dumped(None, 20),
    'YAML, "': dumped('"', 30),
    'YAML, ", ASCII': dumped('"', 80),
    "YAML, '": dumped("'", 20),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "quote": quote,
    "quote, all": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "HTML": html.escape,
    "HTML, ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "pretty-printed lines": lambda text: json.dumps(text.splitlines(), indent=8),
    "Base64": base64_of("", "", None),
    "Base64, a line": base64_of("", "\n", None),
    "Base64, user:secret": base64_of("user:", "", None),
    "Base64, root:secret": base64_of("root12:", "", None),
    "Base64, u:secret": base64_of("users:", "\n", None),
    "Base64 in lines of 76": base64_of("x" * 50, "\n", 76),
    "Base64 in lines of 64": base64_of("some text: ", " more", 64),
    "Base64 in lines of 60": base64_of("", "", 60),
    "Base64 for URLs": base64_of("a:", "", None, is_for_urls=True),
}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SPECIAL = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \téß€"
secret_values = st.lists(st.sampled_from(LETTERS * 2 + SPECIAL), min_size=6, max_size=48).map("".join)


def another(secret: str) -> str:
    """Returns a secret like this one, without any letter or digit that is the same."""
    circles = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "éß")
    return "".join(
        next((one[(one.index(char) + 1) % len(one)] for one in circles if char in one), char) for char in secret
    )


def encoded(secret: str, names: list[str]) -> bytes:
    text = f"{secret}"
    for name in names:
        text = ENCODERS[name](text)
    return f"ok: [web1] => {text}, done\n".encode()


def visible(secret: str, names: list[str], shown: bytes) -> list[int]:
    """Returns where the output shows the secret: it is not masked, and differs with another secret."""
    mine, other = encoded(secret, names), encoded(another(secret), names)
    # Otherwise one has an escape more, and they cannot be compared by places.
    stages = range(len(names) + 1)
    assume(all(len(encoded(secret, names[:n])) == len(encoded(another(secret), names[:n])) for n in stages))
    assert len(shown) == len(mine)
    return [place for place in range(len(mine)) if mine[place] != other[place] and shown[place] != ord("*")]


def fed(secret: str, data: bytes, cuts: list[int]) -> bytes:
    masker = Masker(Secrets(connection_password=secret))
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [masker.feed(data[begin:end], [])[0] for begin, end in zip(places, places[1:], strict=False)]
    return b"".join(parts) + masker.finish()[0]


@pytest.mark.generates
@pytest.mark.timeout(1800)
@tried
@given(
    secret_values,
    st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3),
    st.lists(st.integers(0, 5000), max_size=4),
)
@example("pr4$sP a\"ss'w\\rd", ["JSON", "Base64, user:secret", "Base64 in lines of 76"], [70, 90])
@example('M]ynBZZ}D"RahNEW.2p56es5\\3mjLp]1p\t<Nn#j77Vné', ["YAML, narrow", "quote_plus", "repr"], [])
@example("IlN-48y3skk82aLMn~MTA l/JMxux0%3", ["quote, all", "Base64", "Base64 in lines of 60"], [4, 56])
@example("K4<AX?c@", ["Base64, a line", "quote, all", "Base64, u:secret"], [])
@example("R{MB8 V/g1Y9D%38_7bGN}zkh$50r9LVh`7€BUKCJt9JCjt", ["Base64", "Base64 in lines of 76"], [])
@example("&y@_T}RZaBprtA", ["Base64 in lines of 76", "YAML, '", "quote_plus"], [])
@example("JKgkK<rsApkc5`pT=CkfLKMKfZM^DvXNaFcjt:G`!if!/", ["Base64 in lines of 64", "pretty-printed lines"], [84, 85])
@example("e%XZXkAl0WqW;nEfPj7", ["Base64 in lines of 76", "pretty-printed lines", 'YAML, ", ASCII'], [740, 3142, 470])
@example("q5,Mo+B<czp)6plBNQ_ukj(tKaAp9,x\\r3pcNTlGBP-f", ["Base64 in lines of 64", "pretty-printed lines", "HTML"], [])
@example("U?zrE<Nu{zgpRlE*bp&gOm8vvm5vQ;BEgbOzß8n0", ["Base64 in lines of 64", 'YAML, "', "YAML, '"], [])
@example("k_EV1}%2vU5}u jSj€cvYz7fbkvFiEJ:rvYßwa:k,#N/Wi4,", ["ascii", 'YAML, "', "quote_plus"], [])
@example("8L(zy[3sh+:YKßID1i", ["repr of bytes", 'YAML, "'], [869, 4021, 1547, 2058])
@example('@trIs`WN@Cv6REWK[4F"T;D/C@2@v+HeGqOxvKl€', ['YAML, "', "pretty-printed lines", "Base64"], [])
@example("SCB?Z_iwQ59fi$f(KiRn\t|s9QexU}Fq'z5Z4", ["YAML, '", "pretty-printed lines", "pretty-printed lines"], [])
@example(",bfZx:c|{CGb;B5r1&,fn7V", ["printf %q, LC_ALL=C", 'YAML, "', "YAML, '"], [])
@example("Q58/8$RH(L98[Ey%6bH87=H5m\tgv:xEez", ['YAML, "', "shlex.quote"], [1447])
@example("fQm$:F'&€P;S F5YDT3Jo", ['YAML, ", ASCII', "printf %q"], [])
@example("m*m.iDy`U3vvzXH\t01Ibnkl:€fYb-:b$sOW6[%0B", ["set -x", 'YAML, ", ASCII', "repr"], [])
@example("D-hhJ€", ["Base64 in lines of 76", "JSON, Unicode", "JSON, Unicode"], [])
@example("a![^e,)b2R6gJ 1y(kV@YpcJ~", ["YAML, '", "pretty-printed lines", "YAML, narrow"], [])
@example("0 TlNK7#+mOklN[xhHYRN}\t(_H,HDéH^:H!t.~tl-g", ["printf %q", 'YAML, "', "printf %q, LC_ALL=C"], [])
@example("R10F~v'n*aU&LL1", ["Base64 in lines of 76", 'YAML, "', 'YAML, ", ASCII'], [1523, 2996, 58, 4192])
@example("yaF893TtyxJ#2)zX`0Dé*yN(*|Ku]z", ['YAML, ", ASCII', 'YAML, "', "YAML, '"], [])
def test_no_encoder_shows_anything_of_a_secret(secret: str, names: list[str], cuts: list[int]) -> None:
    assume(sum(char.isalnum() for char in secret) >= 4)
    data = encoded(secret, names)
    shown = fed(secret, data, cuts)
    assert visible(secret, names, shown) == [], f"{data!r}\n{shown!r}"


def test_bash_quotes_as_these_tests_do() -> None:
    require_program("bash")
    for secret in ("it's", 'pa$$"w', "a b\tc", "C:\\new!"):
        script = 'printf %q "$1"; set -x; : "$1"'
        done = subprocess.run(["bash", "-c", script, "-", secret], capture_output=True, text=True, check=True)
        assert done.stdout == printf_q(secret)
        assert fed(secret, done.stderr.encode(), []).count(b"*") >= len(secret) - 1, done.stderr


def test_base64_of_a_whole_key_shows_no_line_of_it() -> None:
    lines = [base64.b64encode(random.Random(number).randbytes(48)).decode() for number in range(12)]
    key = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])
    other = "\n".join(
        ["-----BEGIN OPENSSH PRIVATE KEY-----", *map(another, lines), "-----END OPENSSH PRIVATE KEY-----", ""]
    )
    for before in ("", "k", "ke", "key"):
        mine, theirs = (base64.encodebytes((before + one).encode()) for one in (key, other))
        masker = Masker(Secrets(private_key=key))
        shown = b"".join(masker.feed(line, [])[0] for line in mine.splitlines(keepends=True)) + masker.finish()[0]
        assert not [place for place in range(len(mine)) if mine[place] != theirs[place] != shown[place] != ord("*")]


def test_base64_that_an_event_has_as_a_list_of_lines_is_hidden() -> None:
    secret = "correct horse battery staple"
    masker = Masker(Secrets(connection_password=secret))
    text = base64.encodebytes(b"some text before it, " + secret.encode() + b" and behind").decode()
    event = {"event": "host_result", "result": {"stdout": text, "stdout_lines": text.splitlines(), "rc": 0}}
    shown = masker.event(event)["result"]
    assert shown["rc"] == 0 and shown["stdout"].splitlines() == shown["stdout_lines"]
    assert "Y29ycmVjdC" not in shown["stdout"] and shown["stdout"].count("*") >= len(secret) * 4 // 3
    assert len(shown["stdout"]) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "ok: [web1] => changed=false path=/usr/lib/python3/dist-packages/ansible/modules/copy.py\n",
        "pass word; pass-word; passwor\nd1; PASSWORD1; password\n1",
        base64.encodebytes(bytes(range(256)) * 40).decode(),
        json.dumps({"stdout": 'a\n"b"\tc', "checksum": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}) * 50,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert fed("password1", text.encode(), [100, 200]) == text.encode()
    assert fed("wxzy", text.encode(), [100, 200]) == text.encode()


def test_lines_that_do_not_end_in_the_beginning_of_a_secret_are_shown_at_once() -> None:
    masker = Masker(Secrets(connection_password="correct horse battery"))
    for line in (b"TASK [install] ****\n", b"ok: [web1]\n", b"the correct\tone, of course\n", b"Continue? "):
        assert masker.feed(line, [])[0] == line


@pytest.mark.timeout(120)
@pytest.mark.parametrize("secret", ["+'+'+'+'!!!!+'+", "',',',',',',',", "a\"'\\ $b c d", "%25%25%25", "éééééééé"])
@pytest.mark.parametrize("unit", ["\\", "\\\\n", "'\"", "' + ", "%25", "&amp;", "',\n", "A" * 40 + "\n", "+"])
def test_output_made_to_confuse_the_patterns_takes_linear_time_and_little_memory(secret: str, unit: str) -> None:
    masker = Masker(Secrets(connection_password=secret))
    started = time.process_time()
    data = unit.encode() * (65536 // len(unit))
    assert len(data) - len(masker.feed(data, [])[0]) < 8192
    assert time.process_time() - started < 10
