"""Which commit comes from which, for any number of pairs at the cost of the commits: one git process reads the graph of a
repository, the rest is judged here.  What the graph does not know (a tag, a commit that is gone) git itself is asked.
"""
import subprocess

from .gitcli import GIT, git_env


def is_ancestor(repository, older, newer):
    command = [GIT, "--git-dir", repository, "merge-base", "--is-ancestor", older, newer]
    done = subprocess.run(command, capture_output=True, timeout=60, env=git_env("/nonexistent"))
    return done.returncode == 0


class Graph:
    """All that is reachable from these commits; ids that name none are passed over."""

    def __init__(self, repository, ids):
        self.parents, self.height = {}, {}
        done = subprocess.run(
            [GIT, "--git-dir", repository, "rev-list", "--parents", "--topo-order", "--reverse", "--ignore-missing",
             "--stdin"], input="".join(f"{x}\n" for x in ids).encode(), capture_output=True, timeout=300,
            env=git_env("/nonexistent"))
        for line in done.stdout.decode().splitlines():      # parents come first
            commit, *parents = line.split()
            self.parents[commit] = parents
            self.height[commit] = 1 + max((self.height.get(p, 0) for p in parents), default=0)

    def comes_from(self, newer, older):
        """Is older an ancestor of newer, or the same?  Walks no further down than to older."""
        floor, seen, queue = self.height.get(older, 0), {newer}, [newer]
        while queue:
            commit = queue.pop()
            if commit == older:
                return True
            for p in self.parents.get(commit, ()):
                if p not in seen and self.height.get(p, 0) >= floor:
                    seen.add(p)
                    queue.append(p)
        return False


def forced(repository, moves):
    """Those of the moves, as (old, new), that do not go to a descendant."""
    graph = Graph(repository, {commit for move in moves for commit in move})
    return [(old, new) for old, new in moves
            if not graph.comes_from(new, old) and not is_ancestor(repository, old, new)]
