"""Git objects, packs and smart-HTTP bodies made by hand.

Git's own client refuses to make most of what an attacker sends, and it is slow where a test needs a
thousand pushes.  Everything here is bytes: objects with zlib and SHA-1, packs without deltas (or
with the hand-made delta of a bomb), pkt-lines, and the reports that come back.
"""
import hashlib
import struct
import zlib

GENESIS = "56776245ff7b896622904bfc4d1c355a35e6cd81"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
ZERO = "0" * 40
MAIN = "refs/heads/main"
FLUSH = b"0000"
CAPS = "report-status side-band-64k quiet object-format=sha1 agent=memfs-test"

TYPES = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
FILE, EXEC, FOLDER, LINK, GITLINK = b"100644", b"100755", b"40000", b"120000", b"160000"


# -- objects ---------------------------------------------------------------------------------------

def object_id(kind, data):
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()


class Objects:
    """Objects by id; what was added is what pack() sends."""

    def __init__(self):
        self.by_id = {}

    def add(self, kind, data):
        oid = object_id(kind, data)
        self.by_id[oid] = (kind, data)
        return oid

    def blob(self, data):
        return self.add("blob", data if isinstance(data, bytes) else data.encode())

    def tree(self, entries, sort=True):
        """entries: (mode, name, id), modes and names as bytes; sorted as git wants unless told."""
        if sort:
            entries = sorted(entries, key=lambda e: e[1] + (b"/" if e[0] == FOLDER else b""))
        return self.add("tree", b"".join(
            mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries))

    def tree_of(self, files, mode=FILE):
        """Nested trees of {path: bytes or blob id}."""
        here, folders = [], {}
        for path, data in files.items():
            path = path.encode() if isinstance(path, str) else path
            head, slash, rest = path.partition(b"/")
            if slash:
                folders.setdefault(head, {})[rest] = data
            else:
                oid = data if isinstance(data, str) and len(data) == 40 else self.blob(data)
                here.append((mode, head, oid))
        for name, inner in folders.items():
            here.append((FOLDER, name, self.tree_of(inner, mode)))
        return self.tree(here)

    def commit(self, tree, parents, message="a test commit\n", when=1767225600,
               who="Test <test@example.org>", committed=None, zone="+0000"):
        lines = ["tree " + tree] + ["parent " + p for p in parents]
        lines.append(f"author {who} {when} {zone}")
        lines.append(f"committer {who} {when if committed is None else committed} {zone}")
        return self.add("commit", ("\n".join(lines) + "\n\n" + message).encode())

    def pack(self, ids=None):
        ids = list(self.by_id) if ids is None else ids
        return pack_of([(TYPES[self.by_id[i][0]], self.by_id[i][1]) for i in ids])


def pack_entry_head(kind, size):
    first = (kind << 4) | (size & 15)
    size >>= 4
    out = bytearray()
    while size:
        out.append(first | 0x80)
        first = size & 0x7F
        size >>= 7
    out.append(first)
    return bytes(out)


def pack_of(entries):
    """entries: (type number, bytes), or (7, bytes, base id) for a delta against a named object."""
    body = bytearray(b"PACK" + struct.pack(">II", 2, len(entries)))
    for entry in entries:
        body += pack_entry_head(entry[0], len(entry[1]))
        if entry[0] == 7:
            body += bytes.fromhex(entry[2])
        body += zlib.compress(entry[1])
    return bytes(body) + hashlib.sha1(body).digest()


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def doubling_delta(base_size, times):
    """A delta that copies its base `times` times: a small text for a huge result (T13)."""
    out = bytearray(varint(base_size) + varint(base_size * times))
    for _ in range(times):
        size = base_size
        op, args = 0x80, bytearray()
        for i in range(3):
            if size >> (8 * i) & 0xFF:
                op |= 0x10 << i
                args.append(size >> (8 * i) & 0xFF)
        if size == 0x10000:
            op, args = 0x80, bytearray()
        out.append(op)
        out += args
    return bytes(out)


# -- pkt-lines -------------------------------------------------------------------------------------

def pkt(data):
    data = data.encode() if isinstance(data, str) else data
    return b"%04x" % (len(data) + 4) + data


def pkts(data):
    """Yields each packet's payload, None for a flush, delim or end."""
    at = 0
    while at < len(data):
        n = int(data[at:at + 4], 16)
        if n < 4:
            yield None
            at += 4
            continue
        if at + n > len(data):
            raise ValueError("a cut packet")
        yield data[at + 4:at + n]
        at += n


def parse_refs(body):
    """Protocol v0 advertisement -> ({ref: id}, capabilities)."""
    refs, caps = {}, ""
    for line in pkts(body):
        if line is None or line.startswith(b"# service"):
            continue
        line, _, first_caps = line.rstrip(b"\n").partition(b"\0")
        caps = caps or first_caps.decode()
        oid, _, name = line.decode().partition(" ")
        if oid != ZERO:
            refs[name] = oid
    return refs, caps


def push_body(commands, pack, caps=CAPS):
    """commands: (old, new, ref)."""
    lines = []
    for i, (old, new, ref) in enumerate(commands):
        ref = ref.encode() if isinstance(ref, str) else ref
        tail = b"\0 " + caps.encode() if i == 0 else b""
        lines.append(pkt(f"{old} {new} ".encode() + ref + tail))
    return b"".join(lines) + FLUSH + pack


class Report:
    """What a receive-pack answer said; `complete` when it ended as it must."""

    def __init__(self, status, body, error=None):
        self.status, self.body, self.error = status, body, error
        self.unpack, self.refs, self.talk = None, {}, ""
        self.complete = False
        if status == 200 and error is None:
            self._parse(body)

    def _parse(self, body):
        band1, talk = bytearray(), bytearray()
        ended = False
        try:
            for line in pkts(body):
                if line is None:
                    ended = True
                elif line[0] == 1:
                    band1 += line[1:]
                elif line[0] in (2, 3):
                    talk += line[1:]
                else:
                    band1 += pkt(line)
            for line in pkts(bytes(band1)):
                self._line(line)
        except ValueError as e:
            self.error = e
        self.talk = talk.decode("utf-8", "replace")
        self.complete = ended and self.unpack is not None

    def _line(self, line):
        if line is None:
            return
        text = line.decode("utf-8", "replace").rstrip("\n")
        if text.startswith("unpack "):
            self.unpack = text[7:]
        elif text.startswith("ok "):
            self.refs[text[3:]] = "ok"
        elif text.startswith("ng "):
            ref, _, reason = text[3:].partition(" ")
            self.refs[ref] = reason

    @property
    def acked(self):
        return self.complete and self.unpack == "ok" and self.refs.get(MAIN) == "ok"

    @property
    def why(self):
        """The refusal in words, wherever it stands."""
        refusals = [v for v in self.refs.values() if v != "ok"]
        head = "" if self.unpack in (None, "ok") else f"unpack {self.unpack} "
        return head + " ".join(refusals)

    def __repr__(self):
        return (f"<Report http={self.status} unpack={self.unpack!r} refs={self.refs!r} "
                f"talk={self.talk!r} complete={self.complete} error={self.error!r}>")
