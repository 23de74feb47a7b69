"""A store in MongoDB that people can read with their own tools; a standalone mongod is enough.

Theory of operation

1. A commit is first written to the journal (``outbox``, see `hs_stream.store.mongo.journal`) with ``j: true``. The last
   part of it is the commit point. Then instances, retracted revisions and snapshots are applied.
2. Coverage, watermarks, history and the state document follow together, at most every ``checkpoint_seconds`` and on
   `MongoStore.close`: the *checkpoint*. Its last write says up to which commit everything is applied.
3. `MongoStore.open` redoes each complete journal entry after the last checkpoint, in order, and drops an incomplete
   one. Redoing is idempotent: every write of it is an upsert or a delete. Until then this process knows the truth from
   memory.
4. All of this rests on one property of the server: its journal is a sequential log, and a write with ``j: true`` makes
   every earlier write that the same mongod process acknowledged durable too. So applying a commit need not wait for
   the disk, and a durable checkpoint proves that what it speaks of is durable. (In a replica set ``w: majority`` does
   the same for the oplog.)
5. An append writes its marks, then dead letters, then readings. One without marks leaves no trace of its ``seq``, so
   ``Recovery.append_seq`` may be lower than the last one used, but never lower than a mark or than what was consumed.
6. A mongod that is killed while we go on forgets acknowledged writes that no ``j: true`` followed, and PyMongo
   reconnects without a word. So whenever connections changed, and in each checkpoint after a durable write, we ask
   which process answers; if it is another, everything after the last checkpoint is redone from the journal before
   anybody reads. Every write of an append is durable by itself.
7. A commit that touches a raw stream (a purge) is followed by a checkpoint at once: appends are not in the journal, so
   it must never be redone over a later one.
8. Before each checkpoint, and before anything is redone, the state document must be no older than we left it:
   `StoreReplaced` when the database was dropped or restored from a backup meanwhile, and nothing more is written.
9. After a `StoreUnavailable` the *same* append or commit must be tried again, because it may be half there.
10. The right to write is the document ``lease`` of ``state``; it runs out by the clock of the server. On a replica set
   the server enforces it, by *guards*: one document of ``state`` for each lane (readings; commits and records; the
   rest), which holds the token, and which a claim changes before it is answered. What only inserts, or replaces a
   little, is one command that looks at the guard and writes (``Writer.guarded``): one round trip. All else is a
   transaction that begins with a conditional write of the guard (``Writer.together``); on a set of several members,
   that is everything. A claim ends what was sent in the sessions of the owner before, and waits until the server
   carries out none of it. Later commands are `Fenced`, wherever their process was frozen: decision 9 has the proof.
11. A standalone server has no transactions. There each command that writes is preceded by a look at the lease, if the
   last one is not younger than `FRESH_MS`: whoever was frozen for longer notices. And a ``seq`` of the journal belongs
   to one token for ever (`hs_stream.store.mongo.journal`, rule 3). Decision 9 says what that does not promise.
"""

from __future__ import annotations

from hs_stream.store.mongo.right import FRESH_MS
from hs_stream.store.mongo.store import MongoStore

__all__ = ["FRESH_MS", "MongoStore"]
