//! The objects of dispatcher mode.

/// The dispatcher, as it is embedded: an ELF object, aligned for the loader.
pub(in super::super) const DISPATCHER: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-dispatcher.o"));

/// `call bpf_xdp_adjust_tail`.
const TRIM: [u8; 8] = [0x85, 0, 0, 0, 65, 0, 0, 0];

/// `w0 = 0`: it went well.
const TRIMMED: [u8; 8] = [0xb4, 0, 0, 0, 0, 0, 0, 0];

/// The program in such a form that it changes no packet's length: the text of a SYN is left behind the SYN-ACK that
/// answers it, beyond the end of the IP packet.
///
/// A program that does takes the place of such functions only as do as well, say kernels since 6.13, and 6.12's in
/// Debian 13. Those of dispatchers before libxdp 1.5.5 do not.
pub(in super::super) fn without_trimming(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    for (begin, end) in code(&object) {
        for instruction in object
            .get_mut(begin..end)
            .into_iter()
            .flat_map(|code| code.chunks_exact_mut(8))
        {
            if instruction == TRIM {
                instruction.copy_from_slice(&TRIMMED);
            }
        }
    }
    object
}

/// The sections with instructions of an ELF object, by where they begin and end (ELF-64: header and section headers).
fn code(object: &[u8]) -> Vec<(usize, usize)> {
    const IS_CODE: usize = 4;
    let number = |at: usize, octets: usize| {
        let bytes = object.get(at..at + octets).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    let (first, size, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    (0..count)
        .map(|index| first + index * size)
        .filter(|section| number(section + 8, 8) & IS_CODE != 0)
        .map(|section| (number(section + 0x18, 8), number(section + 0x20, 8)))
        .map(|(begin, length)| (begin, begin + length))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_does_not_change_the_length_of_packets_and_is_the_same_otherwise() {
        let before = crate::xdp::object();
        let after = without_trimming(before);
        let trims = |object: &[u8]| {
            let code = code(object)
                .into_iter()
                .flat_map(|(begin, end)| object[begin..end].chunks_exact(8));
            code.filter(|&instruction| instruction == TRIM).count()
        };
        let trimmed = trims(before);
        assert!(trimmed > 0 && trims(&after) == 0);
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert_eq!((before.len(), changed.count()), (after.len(), 2 * trimmed));
        assert_eq!(trims(DISPATCHER), 11);
    }
}
