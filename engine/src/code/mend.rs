//! A parse with errors, mended: from an error on its lines are what the scanner says, until both see the same header again.

use std::collections::HashMap;

use super::{Kind, Line, Scope, ScopeId, Structure};

/// The line a scope opens in, which both readings agree on where they see it.
fn opens(scope: &Scope) -> u32 {
    scope.header.end.saturating_sub(1)
}

/// `parsed` and `scanned` are of one text, `errors` first and last lines of what the parser made no sense of, in order.
pub(super) fn mend(parsed: &Structure, scanned: &Structure, errors: &[(usize, usize)]) -> Structure {
    let readings = [parsed, scanned];
    let broken = broken_lines(parsed, scanned, errors);
    let is_broken = |line: u32| broken.get(line as usize).copied().unwrap_or(false);
    // Every scope is told of by the reading that the line it opens in is from.
    let mut told: Vec<(usize, usize)> = Vec::new();
    for (reading, structure) in readings.iter().enumerate() {
        let firsts = structure.scopes.iter().map(|scope| usize::from(is_broken(opens(scope))));
        told.extend(firsts.enumerate().filter(|&(_, of)| of == reading).map(|(id, _)| (reading, id)));
    }
    told.sort_by_key(|&(reading, id)| opens(&readings[reading].scopes[id]));
    let mut ids: [Vec<Option<ScopeId>>; 2] = readings.map(|structure| vec![None; structure.scopes.len()]);
    let mut by_line: HashMap<u32, ScopeId> = HashMap::new();
    for (new, &(reading, id)) in told.iter().enumerate() {
        let new = ScopeId(new as u32);
        ids[reading][id] = Some(new);
        by_line.entry(opens(&readings[reading].scopes[id])).or_insert(new);
    }
    // What the other reading tells of is known by that line.
    let find = |reading: usize, mut scope: Option<ScopeId>| {
        while let Some(ScopeId(id)) = scope {
            let old = &readings[reading].scopes[id as usize];
            let new = ids[reading][id as usize].or_else(|| by_line.get(&opens(old)).copied());
            if new.is_some() {
                return new;
            }
            scope = old.parent;
        }
        None
    };
    let mut scopes: Vec<Scope> = told
        .iter()
        .enumerate()
        .map(|(new, &(reading, id))| {
            let scope = &readings[reading].scopes[id];
            // A scope is inside of one that opened before it, whatever two readings make of it.
            let parent = find(reading, scope.parent).filter(|parent| (parent.0 as usize) < new);
            Scope { parent, ..scope.clone() }
        })
        .collect();
    // Where an error is inside of a scope, the parse may have lost its end.
    for scope in &scanned.scopes {
        let first = opens(scope);
        let end = scope.end.map_or(broken.len(), |end| end as usize).min(broken.len());
        let lost = broken.get(first as usize..end).is_some_and(|lines| lines.contains(&true));
        if let Some(&ScopeId(id)) = by_line.get(&first).filter(|_| lost && !is_broken(first)) {
            scopes[id as usize].end = scope.end;
        }
    }
    let line = |(i, &broken): (usize, &bool)| {
        let reading = usize::from(broken);
        let line = readings[reading].lines[i];
        Line { scope: find(reading, line.scope), ..line }
    };
    Structure { lines: broken.iter().enumerate().map(line).collect(), scopes }
}

/// Which lines an error has made unsure.
fn broken_lines(parsed: &Structure, scanned: &Structure, errors: &[(usize, usize)]) -> Vec<bool> {
    let outer = |structure: &Structure, line: &Line| {
        line.scope.map(|ScopeId(id)| opens(&structure.scopes[id as usize]))
    };
    let mut errors = errors.iter().peekable();
    let (mut broken, mut until) = (false, 0_usize);
    let line = |(i, (a, b)): (usize, (&Line, &Line))| {
        let headers = a.kind == Kind::Header && b.kind == Kind::Header;
        let agree = headers && a.depth == b.depth && outer(parsed, a) == outer(scanned, b);
        broken &= i < until || !agree;
        while let Some(&(_, last)) = errors.next_if(|&&(first, _)| first <= i) {
            broken = true;
            until = until.max(last + 1);
        }
        broken
    };
    parsed.lines.iter().zip(&scanned.lines).enumerate().map(line).collect()
}
