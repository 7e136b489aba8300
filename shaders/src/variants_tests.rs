//! Every kernel on every layout through naga, without a device: what is bound, what immediates look like, and translation for
//! Vulkan, Metal and DX12.

use naga::back::{hlsl, msl, pipeline_constants, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};

use crate::args;
use crate::formats::{LAYOUTS, Layout};
use crate::pipelines::Variant;
use crate::registry::{Binds, Kernel, Needs, plain, registry};

/// Every variant a plan can lead to, but for sizes that stand for many: head sizes and shared heads.
fn variants() -> Vec<(String, Variant)> {
    let mut all = vec![("the probe".to_owned(), crate::probe::variant())];
    for kernel in registry().iter().chain(plain()) {
        match kernel.binds {
            Binds::Weights => {
                let held =
                    |layout: &&Layout| layout.formats.iter().any(|format| kernel.formats.contains(format));
                // The layout of all block formats stands for those whose values are no bytes too.
                for layout in LAYOUTS.iter().filter(held) {
                    let variant = Variant::new(kernel).with("FORMAT", layout.module);
                    all.push((format!("{} on {}", kernel.name, layout.name), variant));
                }
            }
            Binds::Nothing if kernel.op != "AttendMerge" => {
                all.push((kernel.name.into(), Variant::new(kernel)))
            }
            Binds::Nothing | Binds::Cache => {
                for (head_dim, heads) in [(8usize, 1), (72, 3), (128, 8)] {
                    for kv in ["lib/kv_f16", "lib/kv_f32"] {
                        all.push((
                            format!("{} {kv} {head_dim}", kernel.name),
                            with_heads(kernel, kv, head_dim, heads),
                        ));
                        if kernel.module == "ops/attend" {
                            let raw =
                                with_heads(kernel, kv, head_dim, heads).with("QUERIES", "lib/queries_raw");
                            all.push((format!("{} {kv} {head_dim}, raw", kernel.name), raw));
                        }
                    }
                }
            }
        }
    }
    all
}

fn with_heads(kernel: &'static Kernel, kv: &'static str, head_dim: usize, heads: usize) -> Variant {
    let variant =
        Variant::new(kernel).with("KV", kv).with("HEADS", heads).with("DIMS", head_dim.div_ceil(64));
    if variant.source().contains("override HEAD_DIM") {
        variant.constant("HEAD_DIM", head_dim)
    } else {
        variant
    }
}

fn parse(name: &str, variant: &Variant) -> (Module, ModuleInfo) {
    let source = variant.source();
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    let info = Validator::new(
        ValidationFlags::all(),
        Capabilities::IMMEDIATES
            | Capabilities::SUBGROUP
            | Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | Capabilities::SHADER_FLOAT16
            | Capabilities::COOPERATIVE_MATRIX,
    )
    .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
    .subgroup_operations(naga::valid::SubgroupOperationSet::all())
    .validate(&module)
    .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    (module, info)
}

#[test]
fn immediates_and_bindings_are_those_of_the_host() {
    for (name, variant) in variants() {
        let (module, _) = parse(&name, &variant);
        for (_, global) in module.global_variables.iter() {
            if global.space == AddressSpace::Immediate {
                let TypeInner::Struct { members, span } = &module.types[global.ty].inner else {
                    panic!("{name}")
                };
                let seen: Vec<(String, String, u32)> = members
                    .iter()
                    .map(|member| {
                        let kind = match module.types[member.ty].inner {
                            TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Uint => "u32",
                            TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Float => "f32",
                            _ => "neither u32 nor f32",
                        };
                        (member.name.clone().unwrap_or_default(), kind.into(), member.offset)
                    })
                    .collect();
                let known = args::ALL.iter().any(|(_, fields)| {
                    fields.len() == seen.len()
                        && fields.iter().zip(&seen).enumerate().all(|(i, (field, seen))| {
                            *field == (seen.0.as_str(), seen.1.as_str()) && seen.2 == 4 * i as u32
                        })
                });
                assert!(known, "{name}: no struct of the host has the fields {seen:?}");
                assert!(*span <= crate::device::IMMEDIATE_BYTES, "{name}: {span} bytes of immediates");
            }
            let Some(binding) = global.binding else { continue };
            let AddressSpace::Storage { access } = global.space else { panic!("{name}: {:?}", global.space) };
            let writes = access.contains(StorageAccess::STORE);
            let expected = match (binding.group, binding.binding, variant.binds) {
                (0, 0, _) | (1, 0 | 1, Binds::Cache) => true,
                (0, 1 | 2, _) | (1, 0, Binds::Weights) => false,
                other => panic!("{name} binds {other:?}"),
            };
            assert_eq!(writes, expected, "{name} binds {binding:?}");
        }
    }
}

#[test]
fn every_args_struct_is_the_twin_of_its_module() {
    for (module, fields) in args::ALL {
        let (_, source) =
            crate::compose::MODULES.iter().find(|(name, _)| name == module).expect("the module exists");
        let body = source
            .split("struct Args {")
            .nth(1)
            .and_then(|rest| rest.split('}').next())
            .expect("a struct Args");
        let seen: Vec<&str> =
            body.lines().map(|line| line.trim().trim_end_matches(',')).filter(|l| !l.is_empty()).collect();
        let want: Vec<String> = fields.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        assert_eq!(seen, want, "{module}");
    }
}

/// Whether a variant multiplies cooperative matrices.
fn cooperates(variant: &Variant) -> bool {
    let row = registry().iter().find(|row| row.name == variant.kernel);
    row.is_some_and(|row| matches!(row.needs, Needs::CooperativeMatrix(_)))
}

/// The three languages, in the form that users run: no loop bounds, no clamped indices.
#[test]
fn every_variant_translates_to_spirv_msl_and_hlsl() {
    for (name, variant) in variants() {
        let (module, info) = parse(&name, &variant);
        let (module, info) =
            pipeline_constants::process_overrides(&module, &info, None, &overrides(&variant))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        let options = spv::Options { force_loop_bounding: false, ..spv::Options::default() };
        let pipeline =
            spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
        let words = spv::write_vec(&module, &info, &options, Some(&pipeline));
        assert!(!words.unwrap_or_else(|error| panic!("{name}: {error}")).is_empty());

        let options = msl::Options {
            lang_version: (2, 4),
            fake_missing_bindings: true,
            force_loop_bounding: false,
            ..Default::default()
        };
        let pipeline = msl::PipelineOptions { entry_point: None, ..Default::default() };
        let (text, _) = msl::write_string(&module, &info, &options, &pipeline)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        no_bounds(&name, &text);

        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_4,
            fake_missing_bindings: true,
            force_loop_bounding: false,
            restrict_indexing: false,
            immediates_target: Some(hlsl::BindTarget::default()),
            ..Default::default()
        };
        let mut text = String::new();
        let mut writer = hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions { entry_point: None });
        let written = writer.write(&module, &info, None);
        // No adapter of DX12 has cooperative matrices for wgpu, and naga no HLSL for them.
        if cooperates(&variant) {
            assert!(written.is_err(), "{name}: naga writes HLSL of it now");
            continue;
        }
        written.unwrap_or_else(|error| panic!("{name}: {error}"));
        no_bounds(&name, &text);
    }
}

/// The rows that multiply integers do so by the instruction the hardware has for it.
#[test]
fn packed_products_are_one_instruction() {
    const OP_SDOT: u32 = 4450;
    const PACKED_4X8: u32 = 0;
    let mut seen = 0;
    for (name, variant) in variants() {
        let (module, info) = parse(&name, &variant);
        let (module, info) =
            pipeline_constants::process_overrides(&module, &info, None, &overrides(&variant))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        let words = spv::write_vec(&module, &info, &spv::Options::default(), None).unwrap();
        let is_dot =
            |words: &&[u32]| words[0] & 0xffff == OP_SDOT && words.len() == 6 && words[5] == PACKED_4X8;
        let dots = instructions(&words).filter(is_dot).count();
        let row = registry().iter().find(|row| row.name == variant.kernel);
        if row.is_some_and(Kernel::rounds) {
            // Two for each of the 8 words of a run, in one function.
            assert_eq!(dots, 16, "{name}");
            seen += 1;
        } else {
            assert_eq!(dots, 0, "{name}");
        }
    }
    assert!(seen >= 8 * 10, "{seen} variants");
}

/// The rows on cooperative matrices use them, and Metal's name for them.
#[test]
fn cooperative_products_are_instructions() {
    const LOAD: u32 = 4457;
    const STORE: u32 = 4458;
    const MULTIPLY_ADD: u32 = 4459;
    let mut seen = 0;
    for (name, variant) in variants() {
        let (module, info) = parse(&name, &variant);
        let (module, info) =
            pipeline_constants::process_overrides(&module, &info, None, &overrides(&variant)).unwrap();
        let words = spv::write_vec(&module, &info, &spv::Options::default(), None).unwrap();
        let counts = [LOAD, STORE, MULTIPLY_ADD]
            .map(|number| instructions(&words).filter(|words| words[0] & 0xffff == number).count());
        // One function each for the three operands, and for the other two.
        assert_eq!(counts, if cooperates(&variant) { [3, 1, 1] } else { [0; 3] }, "{name}");
        if variant.kernel == "wgsl-f16-coop8" {
            let options =
                msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
            let (text, _) =
                msl::write_string(&module, &info, &options, &msl::PipelineOptions::default()).unwrap();
            for part in ["simdgroup_half8x8", "simdgroup_float8x8", "simdgroup_multiply_accumulate("] {
                assert!(text.contains(part), "{name}: no {part}");
            }
        }
        seen += usize::from(cooperates(&variant));
    }
    assert_eq!(seen, 2 * LAYOUTS.len());
}

/// No row takes more workgroup memory than it says.
#[test]
fn workgroup_memory_is_what_the_row_says() {
    for kernel in registry().iter().chain(plain()).filter(|kernel| kernel.binds == Binds::Weights) {
        let variant = Variant::new(kernel).with("FORMAT", "formats/q4_k");
        let (module, info) = parse(kernel.name, &variant);
        let (module, _) =
            pipeline_constants::process_overrides(&module, &info, None, &overrides(&variant)).unwrap();
        let globals =
            module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
        let bytes: u32 = globals.map(|(_, global)| module.types[global.ty].inner.size(module.to_ctx())).sum();
        assert!(bytes <= kernel.workgroup_bytes, "{}: {bytes} bytes", kernel.name);
    }
}

/// Values of the `override` constants.
fn overrides(variant: &Variant) -> naga::back::PipelineConstants {
    variant.constants.iter().map(|&(key, value)| (key.to_owned(), f64::from(value))).collect()
}

/// The instructions of a SPIR-V module: the first word of each holds its length and its number.
fn instructions(words: &[u32]) -> impl Iterator<Item = &[u32]> {
    let mut rest = &words[5..];
    std::iter::from_fn(move || {
        let length = (rest.first()? >> 16) as usize;
        let (instruction, after) = rest.split_at(length);
        rest = after;
        Some(instruction)
    })
}

/// No counters that bound loops.
fn no_bounds(name: &str, text: &str) {
    assert!(!text.contains(LOOP_BOUND), "{name}: a loop counts its rounds");
}

/// What naga calls the counters that bound loops.
const LOOP_BOUND: &str = "loop_bound";

#[test]
fn the_name_of_loop_counters_is_known() {
    let kernel = registry().iter().find(|row| row.name == "wgsl-f32-gemv1").unwrap();
    let variant = Variant::new(kernel).with("FORMAT", "formats/q4_k");
    let (module, info) = parse("gemv", &variant);
    let (module, info) =
        pipeline_constants::process_overrides(&module, &info, None, &Default::default()).unwrap();
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        force_loop_bounding: true,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions { entry_point: None, ..Default::default() };
    let (text, _) = msl::write_string(&module, &info, &options, &pipeline).unwrap();
    assert!(text.contains(LOOP_BOUND));
}

/// Arrays of a function's own end up in memory, and so do arrays that are values and indexed by a variable.
#[test]
fn no_function_has_arrays_of_its_own() {
    let for_users = |variant: &Variant| plain().iter().all(|row| row.name != variant.kernel);
    for (name, variant) in variants().into_iter().filter(|(_, variant)| for_users(variant)) {
        let (module, info) = parse(&name, &variant);
        let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
        let entries = module.entry_points.iter().enumerate();
        let entries = entries.map(|(i, entry)| (&entry.function, info.get_entry_point(i)));
        for (function, types) in functions.chain(entries) {
            for (_, variable) in function.local_variables.iter() {
                assert!(!holds_array(&module, variable.ty), "{name}: {:?} is an array", variable.name);
            }
            for (_, expression) in function.expressions.iter() {
                let naga::Expression::Access { base, .. } = expression else { continue };
                let indexed = types[*base].ty.inner_with(&module.types);
                assert!(
                    !matches!(indexed, TypeInner::Array { .. }),
                    "{name}: an array that is a value is indexed"
                );
            }
        }
    }
}

fn holds_array(module: &Module, ty: naga::Handle<naga::Type>) -> bool {
    match &module.types[ty].inner {
        TypeInner::Array { .. } => true,
        TypeInner::Struct { members, .. } => members.iter().any(|member| holds_array(module, member.ty)),
        _ => false,
    }
}
