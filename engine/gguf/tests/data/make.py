"""Makes python-gguf.gguf with the PyPI package gguf (0.19), for tests/read.rs. Run in this folder."""

import numpy as np
from gguf import GGMLQuantizationType as Q, GGUFValueType as T, GGUFWriter, quants

writer = GGUFWriter("python-gguf.gguf", "llama")
writer.add_uint8("t.u8", 0xFE)
writer.add_int8("t.i8", -2)
writer.add_uint16("t.u16", 0xFFFE)
writer.add_int16("t.i16", -3)
writer.add_uint32("t.u32", 0xFFFFFFFE)
writer.add_int32("t.i32", -4)
writer.add_uint64("t.u64", 0xFFFFFFFFFFFFFFFE)
writer.add_int64("t.i64", -5)
writer.add_float32("t.f32", 0.1)
writer.add_float64("t.f64", 0.1)
writer.add_bool("t.bool", True)
writer.add_string("t.str", "naïve ☃")
writer.add_array("a.strings", ["", "a", "snow ☃"])
writer.add_array("a.bools", [True, False, True])
writer.add_array("a.nested", [[1, 2], [3]])
for name, kind in [("u8", T.UINT8), ("i8", T.INT8), ("u16", T.UINT16), ("i16", T.INT16), ("u32", T.UINT32),
                   ("i32", T.INT32), ("u64", T.UINT64), ("i64", T.INT64), ("f32", T.FLOAT32), ("f64", T.FLOAT64)]:
    writer.add_key_value(f"a.{name}", [1, 2, 3], T.ARRAY, sub_type=kind)
writer.add_custom_alignment(64)

values = np.arange(64, dtype=np.float32).reshape(2, 32) - 31.5
writer.add_tensor("f32.weight", values)
writer.add_tensor("f16.bias", np.array([1, -2, 3], dtype=np.float16))
for kind in (Q.Q4_0, Q.Q8_0):
    writer.add_tensor(f"{kind.name.lower()}.weight", quants.quantize(values, kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
