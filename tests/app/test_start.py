"""What app.py cannot start with gets one line."""

import socket
import sys

import pytest

import app
from tests.hidden_packages import finders_without


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "my.pth"], "--checkpoint my.pth: say for which task it is, as in caption=my.pth"),
        (["--port", "0"], "0 must be at least 1"),
        (["--port", "70000"], "--port 70000 must be at most 65535"),
        (["--root_path", "blip"], "--root_path blip must begin with a /, or be a URL"),
    ],
)
def test_impossible_flags_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_without_gradio_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "meta_path", finders_without({"gradio"}))
    for module in [name for name in sys.modules if name.split(".")[0] == "gradio" or name == "webapp.page"]:
        monkeypatch.delitem(sys.modules, module)
    assert app.main([]) == 2
    said = capsys.readouterr().err
    assert said == "app.py: the page needs gradio: in this repository's folder, pip install -e '.[app]'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folder", "nowhere"], "nowhere: there is no such file, folder with pictures, or match"),
        (["--checkpoint", "caption=nowhere.pth"], "no checkpoint 'nowhere.pth': "),
        (["--device", "gpu"], "--device gpu: unknown; choose auto, cpu, cuda or mps"),
    ],
)
def test_what_is_not_there_is_named(arguments, said, capsys):
    pytest.importorskip("gradio", reason="`make test-app` installs the page's packages")
    assert app.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"app.py: {said}")


def test_a_port_that_is_taken_is_named(capsys):
    pytest.importorskip("gradio", reason="`make test-app` installs the page's packages")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(["--port", str(port)]) == 2
    assert f"app.py: 127.0.0.1, port {port}: " in capsys.readouterr().err
