"What `pip install mpq_nb` brings."
import re

from supply import PERMISSIVE, STRONG, WEAK, closure, licence

NEEDED = closure('mpq_nb')


def test_licences_go_with_ours():
    assert len(NEEDED) > 80
    for n, d in NEEDED.items():
        assert not re.search(STRONG, licence(d)), (n, licence(d))
        assert re.search(f'{PERMISSIVE}|{WEAK}', licence(d)), (n, licence(d))


def test_no_tool_comes_that_running_does_not_need():
    tools = {'nbdev', 'jupyterlab', 'notebook', 'ipykernel', 'nbconvert', 'nbclient', 'voila', 'pytest', 'hypothesis', 'playwright', 'ray'}
    assert not tools & set(NEEDED)
    assert {'nbdev', 'pytest'} <= set(closure('mpq_nb', ['dev']))       # the question can be answered with yes
