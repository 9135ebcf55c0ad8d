#!/usr/bin/env python3
"""mix_fits.py BASE.gguf OTHER.gguf OUT.gguf REGEX: the fit BASE with those packed matrices of OTHER whose names match, to measure what a part of the model loses.
Both are fits of one analysis, so that their pipelines are the same. The metadata, promises included, stays BASE's."""
import re
import struct
import sys

import numpy as np
from gguf import GGUFReader

ALIGNMENT = 64


def padded(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def main(base_path, other_path, out_path, pattern):
    base, other = GGUFReader(base_path), GGUFReader(other_path)
    others = {tensor.name: tensor for tensor in other.tensors}
    # Counts and metadata as they are; places of tensors anew.
    end = max(field.offset + sum(part.nbytes for part in field.parts) for field in base.fields.values() if field.offset >= 24)
    head = np.memmap(base_path, dtype=np.uint8, mode='r')[:end].tobytes()
    data, offset = [], 0
    for tensor in base.tensors:
        taken = others[tensor.name] if tensor.name.endswith('.xbit') and re.search(pattern, tensor.name) else tensor
        name, values = tensor.name.encode(), taken.data.reshape(-1).view(np.uint8)
        head += struct.pack('<Q', len(name)) + name + struct.pack('<I', len(taken.shape)) + b''.join(struct.pack('<Q', int(n)) for n in taken.shape)
        head += struct.pack('<IQ', int(taken.tensor_type), offset)
        data.append((offset, values))
        offset += padded(values.nbytes)
    begin = padded(len(head))
    with open(out_path, 'wb') as out:
        out.write(head)
        for at, values in data:
            out.seek(begin + at)
            out.write(values.tobytes())
        out.truncate(begin + offset)


if __name__ == '__main__':
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
