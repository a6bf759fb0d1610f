"""Which names of images are web addresses: the same of one name and of a column."""

import pyarrow as pa

from data.records.addresses import are_web_addresses
from files import is_web_address

NAMES = {
    "http://a/b.jpg": True,
    "https://a/b.jpg": True,
    "HTTP://a/b.jpg": True,
    "hTtPs://a": True,
    "http:/a": False,
    "httpd/c.jpg": False,
    "http/a://b": False,
    " http://a": False,
    "a\nhttp://b": False,
    "xhttps://a": False,
    "httpss://a": False,
    "HTTP\u017f://a": False,  # a long s, which is an S in upper case
    "ftp://a": False,
    "": False,
}


def test_an_address_begins_with_http_or_https_in_any_case():
    assert {name: is_web_address(name) for name in NAMES} == NAMES
    assert are_web_addresses(pa.array(NAMES)).to_pylist() == list(NAMES.values())
    assert are_web_addresses(pa.chunked_array([["http://a", None], ["b"]])).to_pylist() == [True, None, False]
