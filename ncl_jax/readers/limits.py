"""What a reader of files from elsewhere takes at the most; no valid file comes near.

Every reader takes time and memory in proportion to the bytes it reads, so that these limits are
limits of time as well. What a file says of its own size is compared with the bytes there are before
memory is asked for. Videos have a limit of time and a process of their own (`video.pool`).

| file | bytes | depth | members | unfolds to |
|---|---|---|---|---|
| text, lists, tables, JSON | `TEXT` | `DEPTH` | in proportion to bytes | |
| pickled captions | `PICKLE` | 3 | `WORDS` words of `TEXT` characters | |
| OpenAI's vocabulary | `VOCABULARY` | | | `VOCABULARY` |
| `.npy`, `.npz` | any | | `ARRAYS` | `RATIO` times its bytes, or `SMALL` |
| an index | any | `DEPTH` | `ARRAYS` | its bytes |
| torch files | any, their pickle `PICKLE` | `DEPTH` | | their bytes, or `EXPANDED` elements |
| safetensors | any | | | their bytes (the library's own check) |
"""

TEXT = 1 << 30
"""Bytes; the largest of the annotations known here has 0.1 GB."""
PICKLE = 1 << 28
"""Bytes; MSVD's captions have 5 MB."""
WORDS = 1 << 25
VOCABULARY = 1 << 26
"""Bytes; CLIP's has 3 MB, unfolded."""
DEPTH = 100
"""Of lists in lists; the formats read here need six."""
ARRAYS = 1000
RATIO = 100
"""To which a compressed array may unfold."""
SMALL = 1 << 26
"""Bytes to which any array may unfold."""
EXPANDED = 1 << 26
"""Elements of a torch tensor that repeats its bytes (`torch.Tensor.expand`)."""
