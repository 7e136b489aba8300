//! Writing a model: keys and tensor headers first, then each tensor's data as it is made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cchaha_plan::Format;

use crate::error::Place;
use crate::index::NameIndex;
use crate::parse::{MAX_DEPTH, MAX_INNER_ARRAYS, MAX_KEYS, MAX_NAME_BYTES, MAX_TENSORS, types};
use crate::value::{Array, Value};
use crate::{Dims, Error, Metadata};

/// The version written: what every current reader reads.
const VERSION: u32 = 3;
/// The longest tensor name llama.cpp reads, which keeps it in 64 bytes with a zero at the end.
const MAX_TENSOR_NAME_BYTES: usize = 63;

/// End of the temporary file's name.
const TEMPORARY: &str = ".gguf.tmp";

/// Names tried for the temporary file.
const MAX_ATTEMPTS: u32 = 1000;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file, of at most 63 bytes.
    pub name: String,
    /// How the values are stored.
    pub format: Format,
    /// Dimensions, columns first.
    pub dims: Dims,
}

/// Writes a GGUF version 3 file at `path`: [`stage`], then [`Staged::commit`].
///
/// # Errors
/// As [`stage`] and [`Staged::commit`].
pub fn write(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    stage(path, metadata, tensors, data, |_| ())?.commit()
}

/// Writes a GGUF version 3 file beside `path`, under a temporary name.
///
/// `data(i, out)` is called once for each tensor, in order, and writes exactly the
/// `dims.n_bytes(format)` bytes of `tensors[i]` to `out`; so no more than one tensor need be in memory.
/// Then `finish` may put other values of the same sizes into the metadata: what is known only once all data has been
/// seen, such as checksums.
///
/// Whatever happens, `path` holds what it held before until [`Staged::commit`]. A process that is killed may leave
/// the temporary file, `NAME.PID-0.gguf.tmp`; the next one that writes `path` removes it.
///
/// # Errors
/// [`Error::Unwritable`] where the result would not be a valid file, `data` writes another number of bytes or `finish`
/// changes the size of the metadata; [`Error::Io`] where the file system or `data` fails.
pub fn stage(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
    finish: impl FnOnce(&mut Metadata),
) -> Result<Staged, Error> {
    let name = path.display().to_string();
    let failed = |source| Error::Io { file: name.clone(), action: "write", source };
    if path.is_dir() {
        return Err(Error::Directory { file: name });
    }
    remove_leftovers(path);
    let (temporary, mut file) = Temporary::create(path).map_err(failed)?;
    write_to(&name, &mut file, metadata, tensors, data)?;
    let mut finished = metadata.clone();
    finish(&mut finished);
    rewrite_header(&name, &mut file, metadata, &finished, tensors)?;
    file.sync_all().map_err(failed)?;
    Ok(Staged { temporary, file, target: path.to_owned() })
}

/// A finished file under a temporary name; dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    temporary: Temporary,
    /// Holds the lock that tells other processes that the file is not left over.
    file: File,
    target: PathBuf,
}

impl Staged {
    /// Gives the file its name, in one step.
    ///
    /// # Errors
    /// [`Error::Io`] where the file system refuses; then the temporary file is removed.
    pub fn commit(self) -> Result<(), Error> {
        let Staged { temporary, file, target } = self;
        let outcome = temporary.rename_to(&target);
        drop(file);
        outcome.map_err(|source| Error::Io { file: target.display().to_string(), action: "write", source })
    }
}

/// Puts `after` in the place of `before` at the start of the file.
fn rewrite_header(
    name: &str,
    file: &mut File,
    before: &Metadata,
    after: &Metadata,
    tensors: &[TensorSpec],
) -> Result<(), Error> {
    let alignment = u64::from(before.alignment()?);
    let sizes = tensor_sizes(name, tensors, alignment)?;
    let failed = |source| Error::Io { file: name.to_owned(), action: "write", source };
    let header = |metadata: &Metadata| {
        let mut sink = Sink { out: BufWriter::new(Vec::new()), written: 0 };
        sink.header(metadata, tensors, &sizes, alignment)?;
        sink.out.into_inner().map_err(io::IntoInnerError::into_error)
    };
    let (before, after) = (header(before).map_err(failed)?, header(after).map_err(failed)?);
    if before == after {
        return Ok(());
    }
    if before.len() != after.len() {
        let problem = "the finished metadata has another size";
        return Err(unwritable(name, Place::Header, problem));
    }
    file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&after)).map_err(failed)
}

/// Removes the temporary files of `path`, and of the parts of a split model of that name, whose writers are gone: a
/// living writer holds a lock on its file. What cannot be removed is left.
pub fn remove_leftovers(path: &Path) {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| is_temporary_of(stem, name)) {
            continue;
        }
        if let Ok(file) = OpenOptions::new().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether [`Temporary::create`] names a file so for a target `STEM.gguf` or a part of it.
fn is_temporary_of(stem: &str, name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(TEMPORARY));
    let Some((part, numbers)) = middle.and_then(|middle| middle.rsplit_once('.')) else { return false };
    let ours = numbers.split_once('-').is_some_and(|(process, attempt)| digits(process) && digits(attempt));
    let whole = part.is_empty();
    let part = part.strip_prefix('-').and_then(|part| part.split_once("-of-"));
    ours && (whole || part.is_some_and(|(part, count)| digits(part) && digits(count)))
}

/// Writes a GGUF version 3 file to `out`, as [`write()`] does to a path; `name` stands for the file in errors.
///
/// # Errors
/// As [`write()`].
pub fn write_to(
    name: &str,
    out: &mut impl Write,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    mut data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let alignment = u64::from(metadata.alignment()?);
    check_metadata(name, metadata)?;
    let sizes = tensor_sizes(name, tensors, alignment)?;

    let failed = |source| Error::Io { file: name.to_owned(), action: "write", source };
    let mut out = Sink { out: BufWriter::new(out), written: 0 };
    out.header(metadata, tensors, &sizes, alignment).map_err(failed)?;
    for (i, (tensor, &size)) in tensors.iter().zip(&sizes).enumerate() {
        let before = out.written;
        data(i, &mut out).map_err(failed)?;
        let written = out.written - before;
        if written != size {
            let problem = format!("{written} bytes of data were written, expected {size}");
            return Err(unwritable(name, Place::Tensor(&tensor.name), problem));
        }
        out.pad(alignment).map_err(failed)?;
    }
    out.out.flush().map_err(failed)
}

fn unwritable(file: &str, place: Place<'_>, problem: impl Into<String>) -> Error {
    Error::Unwritable { file: file.to_owned(), place: place.to_string(), problem: problem.into() }
}

/// That what is written can be read again: the limits that reading has.
fn check_metadata(file: &str, metadata: &Metadata) -> Result<(), Error> {
    if metadata.len() as u64 > MAX_KEYS {
        let problem = format!("{} keys, at most {MAX_KEYS} are supported", metadata.len());
        return Err(unwritable(file, Place::Header, problem));
    }
    let mut inner_arrays = 0;
    for (key, value) in metadata.iter() {
        if key.len() > MAX_NAME_BYTES {
            let problem = format!("a name of {} bytes, expected at most {MAX_NAME_BYTES}", key.len());
            return Err(unwritable(file, Place::Key(key), problem));
        }
        if let Value::Array(array) = value
            && (!shallow(array, 1, &mut inner_arrays) || inner_arrays > MAX_INNER_ARRAYS)
        {
            let problem = format!(
                "arrays in arrays, at most {MAX_DEPTH} inside each other and {MAX_INNER_ARRAYS} in all are supported"
            );
            return Err(unwritable(file, Place::Key(key), problem));
        }
    }
    Ok(())
}

/// Whether arrays in `array`, itself at `depth`, stay within the depth limit. Counts them.
fn shallow(array: &Array, depth: u32, inner_arrays: &mut u64) -> bool {
    let Array::Arrays(inner) = array else { return true };
    *inner_arrays += inner.len() as u64;
    depth < MAX_DEPTH && inner.iter().all(|array| shallow(array, depth + 1, inner_arrays))
}

/// Bytes of each tensor's data, after checks of names and sizes.
fn tensor_sizes(file: &str, tensors: &[TensorSpec], alignment: u64) -> Result<Vec<u64>, Error> {
    if tensors.len() as u64 > MAX_TENSORS {
        let problem = format!("{} tensors, at most {MAX_TENSORS} are supported", tensors.len());
        return Err(unwritable(file, Place::Header, problem));
    }
    if let Err(second) = NameIndex::build(tensors.len(), |i| &tensors[i].name) {
        return Err(unwritable(file, Place::Tensor(&tensors[second].name), "it is there twice"));
    }
    let mut total = 0u64;
    let sizes = tensors.iter().map(|TensorSpec { name, format, dims }| {
        let wrong = |problem| unwritable(file, Place::Tensor(name), problem);
        if name.len() > MAX_TENSOR_NAME_BYTES {
            let len = name.len();
            return Err(wrong(format!("a name of {len} bytes, expected at most {MAX_TENSOR_NAME_BYTES}")));
        }
        let Some(size) = dims.n_bytes(*format) else {
            let block = format.block_len();
            return Err(wrong(format!("{dims} values of {format}, expected columns in blocks of {block}")));
        };
        let size = size as u64;
        total = size
            .checked_next_multiple_of(alignment)
            .and_then(|padded| total.checked_add(padded))
            .filter(|&total| i64::try_from(total).is_ok())
            .ok_or_else(|| wrong(format!("{size} bytes more make the file longer than a file can be")))?;
        Ok(size)
    });
    sizes.collect()
}

/// Counts what passes through.
struct Sink<W: Write> {
    out: BufWriter<W>,
    written: u64,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Sink<W> {
    /// Everything up to the tensor data.
    fn header(
        &mut self,
        metadata: &Metadata,
        tensors: &[TensorSpec],
        sizes: &[u64],
        alignment: u64,
    ) -> io::Result<()> {
        self.write_all(b"GGUF")?;
        self.u32(VERSION)?;
        self.u64(tensors.len() as u64)?;
        self.u64(metadata.len() as u64)?;
        for (key, value) in metadata.iter() {
            self.string(key)?;
            self.value(value)?;
        }
        let mut offset = 0;
        for (TensorSpec { name, format, dims }, size) in tensors.iter().zip(sizes) {
            self.string(name)?;
            self.u32(dims.len() as u32)?;
            for &len in dims.iter() {
                self.u64(len as u64)?;
            }
            self.u32(format.info().ggml_id)?;
            self.u64(offset)?;
            offset += size.next_multiple_of(alignment);
        }
        self.pad(alignment)
    }

    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let padding = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), padding), self).map(|_| ())
    }

    fn u32(&mut self, number: u32) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> io::Result<()> {
        self.write_all(&number.to_le_bytes())
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        self.u64(text.len() as u64)?;
        self.write_all(text.as_bytes())
    }

    fn value(&mut self, value: &Value) -> io::Result<()> {
        match value {
            Value::U8(v) => self.number(types::U8, v.to_le_bytes()),
            Value::I8(v) => self.number(types::I8, v.to_le_bytes()),
            Value::U16(v) => self.number(types::U16, v.to_le_bytes()),
            Value::I16(v) => self.number(types::I16, v.to_le_bytes()),
            Value::U32(v) => self.number(types::U32, v.to_le_bytes()),
            Value::I32(v) => self.number(types::I32, v.to_le_bytes()),
            Value::U64(v) => self.number(types::U64, v.to_le_bytes()),
            Value::I64(v) => self.number(types::I64, v.to_le_bytes()),
            Value::F32(v) => self.number(types::F32, v.to_le_bytes()),
            Value::F64(v) => self.number(types::F64, v.to_le_bytes()),
            Value::Bool(v) => self.number(types::BOOL, [u8::from(*v)]),
            Value::Str(v) => {
                self.u32(types::STRING)?;
                self.string(v)
            }
            Value::Array(v) => {
                self.u32(types::ARRAY)?;
                self.array(v)
            }
        }
    }

    fn number<const N: usize>(&mut self, id: u32, bytes: [u8; N]) -> io::Result<()> {
        self.u32(id)?;
        self.write_all(&bytes)
    }

    fn array(&mut self, array: &Array) -> io::Result<()> {
        match array {
            Array::U8(v) => self.numbers(types::U8, v, u8::to_le_bytes),
            Array::I8(v) => self.numbers(types::I8, v, i8::to_le_bytes),
            Array::U16(v) => self.numbers(types::U16, v, u16::to_le_bytes),
            Array::I16(v) => self.numbers(types::I16, v, i16::to_le_bytes),
            Array::U32(v) => self.numbers(types::U32, v, u32::to_le_bytes),
            Array::I32(v) => self.numbers(types::I32, v, i32::to_le_bytes),
            Array::U64(v) => self.numbers(types::U64, v, u64::to_le_bytes),
            Array::I64(v) => self.numbers(types::I64, v, i64::to_le_bytes),
            Array::F32(v) => self.numbers(types::F32, v, f32::to_le_bytes),
            Array::F64(v) => self.numbers(types::F64, v, f64::to_le_bytes),
            Array::Bool(v) => self.numbers(types::BOOL, v, |v| [u8::from(v)]),
            Array::Strings(v) => {
                self.u32(types::STRING)?;
                self.u64(v.len() as u64)?;
                self.write_all(v.stored())
            }
            Array::Arrays(v) => {
                self.u32(types::ARRAY)?;
                self.u64(v.len() as u64)?;
                v.iter().try_for_each(|array| self.array(array))
            }
        }
    }

    fn numbers<const N: usize, T: Copy>(
        &mut self,
        id: u32,
        numbers: &[T],
        encode: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
        self.u32(id)?;
        self.u64(numbers.len() as u64)?;
        numbers.iter().try_for_each(|&number| self.write_all(&encode(number)))
    }
}

/// A file that is removed again unless it is renamed to what it was made for.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Beside `target`, under a name no other process uses, and locked for as long as the file is open.
    fn create(target: &Path) -> io::Result<(Temporary, File)> {
        let stem = target.file_stem().ok_or_else(|| io::Error::other("the path names no file"))?;
        for attempt in 0..MAX_ATTEMPTS {
            let mut name = stem.to_owned();
            name.push(format!(".{}-{attempt}{TEMPORARY}", std::process::id()));
            let path = target.with_file_name(name);
            // Never a file that is there: another thread may be writing it, or a process that had this number
            // before may have been killed.
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            };
            let temporary = Temporary { path, renamed: false };
            // Between the two calls another process may have taken the file for a leftover, and locked or removed it.
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                // A file system without locks has no one who tidies up either.
                Err(TryLockError::Error(_)) => return Ok((temporary, file)),
                Ok(()) if temporary.path.exists() => return Ok((temporary, file)),
                Ok(()) => {}
            }
        }
        Err(io::Error::other("too many temporary files in the folder"))
    }

    fn rename_to(mut self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.renamed = true;
        // The new name must survive a power cut, too; only Unix opens folders for that.
        #[cfg(unix)]
        {
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing better can be done than to leave it behind.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
