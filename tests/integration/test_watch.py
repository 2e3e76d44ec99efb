"""sync --watch: one process keeps all memories of a home and their remotes together."""
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from lib.client import Home
from lib.fake_remote import FakeRemote
from lib.patience import remove_tree, settled, wait
from test_apply import KEY, commit, elsewhere, remote_tip, state_git


@pytest.fixture
def remote(folder):
    with FakeRemote(folder / "remotes", create=True) as r:
        yield r


class Watch:
    """A running `memfs sync --watch --json`; what it said, as objects."""

    def __init__(self, home, *args):
        self.home, self.said = home, []
        self.process = home.popen("sync", "--watch", "--json", *args, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def states(self, id):
        return [r["state"] for r in self.said if r["agent_id"] == id]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        err = self.process.stderr.read()
        assert code == 0, err
        return err

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            if kind is None:
                self.end()
            self.process.kill()
            self.process.wait(30)


def make_home(memfs_bin, folder, remote, poll="1", name="home"):
    return Home(memfs_bin, folder / name, LETTA_MEMFS_BASE_URL=remote.url("").rstrip("/"),
                LETTA_API_KEY=KEY, MEMFS_POLL=poll)


def is_synced(home, remote, id):
    return remote_tip(remote, state_git(remote, id)) == home.checkout(id).head


def test_commits_go_out_and_come_in(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    with Watch(home) as w:
        wait(lambda: "synced" in w.states(id))
        head = commit(home, id)
        wait(lambda: remote_tip(remote, state_git(remote, id)) == head)
        theirs = elsewhere(home, folder, remote, state_git(remote, id), {"system/theirs.md": "t\n"})
        wait(lambda: home.checkout(id).head == theirs)
    home.check(id)


def test_inotify_notices_a_commit_long_before_the_next_poll(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote, poll="3600")
    home.run("init", "--agent", id)
    with Watch(home) as w:
        wait(lambda: "synced" in w.states(id))
        for i in range(3):
            head = commit(home, id, text=f"{i}\n")
            wait(lambda: remote_tip(remote, state_git(remote, id)) == head)


def test_its_own_work_does_not_wake_it(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote, poll="3600")
    elsewhere(home, folder, remote, state_git(remote, id), {"system/a.md": "a\n"})
    home.run("init", "--agent", id)
    with Watch(home) as w:
        wait(lambda: "synced" in w.states(id))
        n = settled(lambda: len(remote.requests))
        time.sleep(3)
        assert len(remote.requests) == n


def test_folders_come_and_go(memfs_bin, folder, remote, agent):
    one, two, home = agent(), agent(), make_home(memfs_bin, folder, remote)
    with Watch(home) as w:                      # not even ~/.letta is there yet
        home.run("init", "--agent", one)
        wait(lambda: "synced" in w.states(one))
        home.run("init", "--agent", two)
        wait(lambda: "synced" in w.states(two))
        remove_tree(home.root(one))
        head = commit(home, two)
        wait(lambda: remote_tip(remote, state_git(remote, two)) == head)
        home.run("init", "--agent", one)        # and back again
        head = commit(home, one, text="again\n")
        wait(lambda: is_synced(home, remote, one))
        home.checkout(one).run("merge-base", "--is-ancestor", head, "HEAD")


def test_network_that_fails_and_comes_back(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    with Watch(home) as w:
        wait(lambda: "synced" in w.states(id))
        for row in ("503", "close", "501"):
            remote.say(row)
            head = commit(home, id, text=row + "\n")
            n = len(remote.requests)
            wait(lambda: len(remote.requests) > n)
            assert remote_tip(remote, state_git(remote, id)) != head
            remote.mend()
            wait(lambda: remote_tip(remote, state_git(remote, id)) == head, 120)
        assert w.process.poll() is None


def test_many_memories_of_a_host_that_failed_once_do_not_wait_as_if_it_had_failed_often(
        memfs_bin, folder, remote, agent):
    ids, home = [agent() for _ in range(16)], make_home(memfs_bin, folder, remote, poll="3600")
    for id in ids:
        home.run("init", "--agent", id)
    remote.say("close")
    with Watch(home) as w:
        wait(lambda: all("local-only" in w.states(id) for id in ids))
        remote.mend()                           # 16 failures would count as minutes, one counts as seconds
        wait(lambda: all(is_synced(home, remote, id) for id in ids), "all are synced", 240)


def test_a_commit_just_as_a_sync_ends_is_not_left_to_the_poll(memfs_bin, folder, remote, agent):
    """What arrived is seen there before the watcher has its own result: the next commit falls between."""
    id, home = agent(), make_home(memfs_bin, folder, remote, poll="3600")
    home.run("init", "--agent", id)
    with Watch(home) as w:
        wait(lambda: is_synced(home, remote, id), lambda: f"the first sync: {w.said}")
        for i in range(20):
            head = commit(home, id, text=f"round {i}\n")
            wait(lambda: remote_tip(remote, state_git(remote, id)) == head, f"round {i}")
        assert w.process.poll() is None


def test_a_checkout_that_appears_beside_its_hub_is_watched_in_its_place(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote, poll="3600")
    home.run("init", "--agent", agent())        # so that the folder of all agents is there
    home.run("hook", "prepare-hub", "--agent", id)
    with Watch(home) as w:
        wait(lambda: w.states(id))
        home.run("init", "--agent", id)
        head = commit(home, id)
        wait(lambda: remote_tip(remote, state_git(remote, id)) == head)
        head = commit(home, id, text="again\n")
        wait(lambda: remote_tip(remote, state_git(remote, id)) == head)
        n = settled(lambda: len(remote.requests))
        time.sleep(11)                          # longer than from one look at all folders to the next
        assert len(remote.requests) == n


def test_L3_a_remote_that_hangs_holds_up_nobody_else(memfs_bin, folder, remote, agent):
    stuck, ids, home = [agent() for _ in range(2)], [agent(), agent()], \
        make_home(memfs_bin, folder, remote)
    with FakeRemote() as hole:
        hole.say("hang")
        for id in stuck + ids:
            home.run("init", "--agent", id)
        for id in stuck:
            home.checkout(id).run("config", "memfs.remote", hole.url("x.git"))
        with Watch(home):
            wait(lambda: hole.requests)
            for id in ids * 2:
                head = commit(home, id, text=os.urandom(4).hex() + "\n")
                wait(lambda: remote_tip(remote, state_git(remote, id)) == head)


def test_a_dirty_checkout_follows_when_it_is_clean(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    commit(home, id)
    with Watch(home) as w:
        wait(lambda: is_synced(home, remote, id))
        c = home.checkout(id)
        c.write("system/human.md", "---\ndescription: d\n---\nnot yet\n")
        elsewhere(home, folder, remote, state_git(remote, id), {"system/theirs.md": "t\n"})
        wait(lambda: "held-back" in w.states(id))
        assert b"not yet" in c.read("system/human.md")
        c.commit("done")
        wait(lambda: os.path.exists(os.path.join(c.path, "system/theirs.md")))
        wait(lambda: is_synced(home, remote, id))
    assert b"not yet" in c.read("system/human.md")


def test_L6_one_watcher_a_home(memfs_bin, folder, remote, agent):
    home = make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", agent())
    with Watch(home) as w:
        wait(lambda: w.said)
        done = home.run("sync", "--watch", code=7)
        assert b"another" in done.stderr


def test_F30_it_ends_at_once_also_with_a_hanging_remote(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    remote.say("hang")
    w = Watch(home)
    wait(lambda: remote.requests)
    w.end()
    home.check(id)


def test_refused_credentials_are_not_tried_again_and_again(memfs_bin, folder, remote, agent):
    id, home = agent(), make_home(memfs_bin, folder, remote)
    home.run("init", "--agent", id)
    remote.say("401")
    with Watch(home) as w:
        wait(lambda: "local-only" in w.states(id))
        n = settled(lambda: len(remote.requests))
        for i in range(3):
            commit(home, id, text=f"{i}\n")
            time.sleep(1)
        assert len(remote.requests) == n
