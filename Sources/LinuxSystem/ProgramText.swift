import Glibc

/// The code of this process: the program's and that of its libraries.
public enum ProgramText {
  /// Lets go of the pages of it that were found so far; those that are executed from now on are
  /// found again in the page cache. For a process that goes on with a small part of what it
  /// took to begin.
  ///
  /// - Returns: how many bytes of addresses it was done for.
  @discardableResult
  public static func release() -> Int {
    guard let maps = try? Files.read("/proc/self/maps") else { return 0 }
    var released = 0
    for line in maps.split(separator: UInt8(ascii: "\n")) {
      guard let range = executableFile(line) else { continue }
      // SAFETY: these pages are a file's and cannot be written, so that what is found again is
      // what was let go of. This very code may be among them.
      if madvise(UnsafeMutableRawPointer(bitPattern: range.lowerBound), range.count, MADV_DONTNEED)
        == 0
      {
        released += range.count
      }
    }
    return released
  }

  /// The addresses of a line of proc(5)'s maps, if a file's code is there that nobody writes.
  private static func executableFile(_ line: ArraySlice<UInt8>) -> Range<UInt>? {
    let words = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
    guard words.count == 6, words[1].elementsEqual("r-xp".utf8),
      words[5].contains(UInt8(ascii: "/"))
    else { return nil }
    let ends = words[0].split(separator: UInt8(ascii: "-")).map {
      UInt(String(decoding: $0, as: UTF8.self), radix: 16)
    }
    guard ends.count == 2, let first = ends[0], let end = ends[1], first < end else { return nil }
    return first..<end
  }
}
