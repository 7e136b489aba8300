//! Pipelines, made when first asked for and kept for all runners of a device, and the layouts they share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::compose::{Parameter, compose};
use crate::device::{Device, IMMEDIATE_BYTES};
use crate::registry::{Binds, Kernel};
use crate::store;

/// A kernel with everything that sets one pipeline apart from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    /// Row of the registry.
    pub(crate) kernel: &'static str,
    pub(crate) module: &'static str,
    pub(crate) binds: Binds,
    /// For the composer.
    pub(crate) parameters: Vec<Parameter>,
    /// `override` constants.
    pub(crate) constants: Vec<(&'static str, u32)>,
}

impl Variant {
    pub(crate) fn new(kernel: &Kernel) -> Variant {
        Variant {
            kernel: kernel.name,
            module: kernel.module,
            binds: kernel.binds,
            parameters: kernel.counts.iter().map(|&(name, count)| (name, count.to_string())).collect(),
            constants: Vec::new(),
        }
        .with("REDUCE", kernel.reduce)
        .with("VALUES", kernel.values)
        .with("QUERIES", "lib/queries")
        .with("TILES", kernel.tiles)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Variant {
        self.parameters.retain(|(known, _)| *known != name);
        self.parameters.push((name, value.to_string()));
        self
    }

    pub(crate) fn constant(mut self, name: &'static str, value: usize) -> Variant {
        self.constants.push((name, value as u32));
        self
    }

    /// The WGSL.
    pub(crate) fn source(&self) -> String {
        compose(self.module, &self.parameters)
    }
}

/// Layouts and pipelines of a device.
#[derive(Debug)]
pub(crate) struct Pipelines {
    pub(crate) checked: bool,
    frame: wgpu::BindGroupLayout,
    weights: wgpu::BindGroupLayout,
    cache: wgpu::BindGroupLayout,
    layouts: [wgpu::PipelineLayout; 3],
    /// Bind groups made so far.
    pub(crate) bound: AtomicU64,
    /// What the driver compiled, the file that keeps it, and how many pipelines that file has seen.
    disk: Option<(wgpu::PipelineCache, PathBuf)>,
    kept: AtomicUsize,
    made: Mutex<HashMap<Variant, Arc<wgpu::ComputePipeline>>>,
}

impl Pipelines {
    /// Where `folder` is given, compiled pipelines are kept in it.
    pub(crate) fn new(device: &Device, checked: bool, folder: Option<&Path>) -> Pipelines {
        let frame = layout(device, "frame", &[false, true, true]);
        let weights = layout(device, "weights", &[true]);
        let cache = layout(device, "cache", &[false, false]);
        let pipeline_layout = |second: Option<&wgpu::BindGroupLayout>| {
            device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&frame), second][..1 + usize::from(second.is_some())],
                immediate_size: IMMEDIATE_BYTES,
            })
        };
        let layouts = [pipeline_layout(None), pipeline_layout(Some(&weights)), pipeline_layout(Some(&cache))];
        Pipelines {
            checked,
            frame,
            weights,
            cache,
            layouts,
            bound: AtomicU64::new(0),
            disk: folder.and_then(|folder| device.pipeline_cache(folder)),
            kept: AtomicUsize::new(0),
            made: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, device: &Device, variant: &Variant) -> Arc<wgpu::ComputePipeline> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(variant) {
            return pipeline.clone();
        }
        let module = device.module(variant.module, variant.source(), self.checked);
        let constants: Vec<(&str, f64)> =
            variant.constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
        let pipeline = Arc::new(device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.module),
            layout: Some(&self.layouts[variant.binds as usize]),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: self.disk.as_ref().map(|(cache, _)| cache),
        }));
        made.insert(variant.clone(), pipeline.clone());
        pipeline
    }

    /// Keeps what was compiled since it was last kept, where it is kept at all.
    pub(crate) fn keep(&self) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).len();
        if let Some((cache, file)) = &self.disk
            && self.kept.swap(made, Ordering::Relaxed) < made
            && let Some(data) = cache.get_data()
        {
            store::save(file, &data);
        }
    }

    /// The group every kernel sees: arena, vectors, frame.
    pub(crate) fn bind_frame(&self, device: &Device, buffers: [&wgpu::Buffer; 3]) -> wgpu::BindGroup {
        self.bound.fetch_add(1, Ordering::Relaxed);
        bind(device, &self.frame, &buffers)
    }

    /// A kernel's own group.
    pub(crate) fn bind(&self, device: &Device, binds: Binds, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let layout = match binds {
            Binds::Nothing | Binds::Weights => &self.weights,
            Binds::Cache => &self.cache,
        };
        self.bound.fetch_add(1, Ordering::Relaxed);
        bind(device, layout, buffers)
    }
}

fn bind(device: &Device, layout: &wgpu::BindGroupLayout, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = (0u32..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        .collect();
    device.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

fn layout(device: &Device, label: &str, read_only: &[bool]) -> wgpu::BindGroupLayout {
    let entry = |(binding, &read_only)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = (0u32..).zip(read_only).map(entry).collect();
    device
        .device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}
