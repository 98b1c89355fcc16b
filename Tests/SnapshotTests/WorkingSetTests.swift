import DeviceModel
import LinuxSystem
import Snapshot
import TestSupport
import Testing

@Suite("What a snapshot's machine needs first") struct WorkingSetTests {
  private let files: TemporaryDirectory
  private static let page = DirtyPages.pageSize

  init() throws { files = try TemporaryDirectory() }

  /// 200 pages of RAM, of which those in `stored` are filled with their numbers and `value`, and
  /// two of video memory.
  private func write(
    _ name: String, _ number: UInt8, base: UInt8? = nil, stored: Range<Int>, value: UInt8
  ) throws {
    let writer = try SnapshotWriter(
      path: files.path(name), identifier: [UInt8](repeating: number, count: 16),
      base: base.map { [UInt8](repeating: $0, count: 16) }, created: 0)
    let ram = try writer.addMemory("ram", size: 200 * Self.page)
    for page in stored {
      let bytes = [UInt8](repeating: value, count: Self.page - 1) + [UInt8(page)]
      try bytes.withUnsafeBytes { try ram.store($0, at: page) }
    }
    let video = try writer.addMemory("video", size: 2 * Self.page)
    try [UInt8](repeating: 7, count: Self.page).withUnsafeBytes { try video.store($0, at: 1) }
    try writer.finish()
  }

  private func pages(_ numbers: some Sequence<Int>) -> DirtyPages {
    var pages = DirtyPages(pageCount: 200)
    for number in numbers { pages.insert(page: number) }
    return pages
  }

  private func open(_ name: String) throws -> SnapshotChain {
    try SnapshotChain(path: files.path(name)) { files.path("\($0[0])") }
  }

  /// Alters a page in a file.
  private func damage(_ name: String, _ memory: String, page: Int) throws {
    let stored = try #require(try SnapshotFile(path: files.path(name)).memory(memory))
    let file = try FileDescriptor.open(files.path(name), .writable)
    try file.write([0xEE][...], offset: stored.offset + UInt64(page * Self.page + 9))
  }

  @Test("it is kept beside the snapshot, and nothing else is taken for it")
  func kept() throws {
    try write("1", 1, stored: 10..<60, value: 3)
    let file = try SnapshotFile(path: files.path("1"))
    #expect(try WorkingSet(of: file, memory: "ram") == nil)
    let set = WorkingSet(of: file.identifier, size: 200 * Self.page, pages: pages(10..<30))
    try set.store(for: file.path)
    #expect(try WorkingSet(of: file, memory: "ram") == set)
    #expect(try WorkingSet(of: file, memory: "none") == nil)
    #expect(throws: SnapshotError.self) { try WorkingSet(of: file, memory: "video") }

    let name = "1.workingset"
    let bytes = try files.read(name)
    for place in bytes.indices {
      var altered = bytes
      altered[place] ^= 1 << UInt8(place % 8)
      try files.write(altered, to: name)
      #expect(throws: SnapshotError.self) { try WorkingSet(of: file, memory: "ram") }
    }
    for count in [0, 7, 40, bytes.count - 1] {
      try files.write(bytes.prefix(count), to: name)
      #expect(throws: SnapshotError.self) { try WorkingSet(of: file, memory: "ram") }
    }
    try files.write(bytes + [0], to: name)
    #expect(throws: SnapshotError.self) { try WorkingSet(of: file, memory: "ram") }
  }

  @Test("another snapshot's, or one of another memory or of pages that it lacks, is refused")
  func alien() throws {
    try write("1", 1, stored: 10..<60, value: 3)
    let file = try SnapshotFile(path: files.path("1"))
    var beyond = pages([1])
    beyond.insert(page: 200)
    let sets: [(SnapshotError.Kind, WorkingSet)] = [
      (
        .wrongBase,
        WorkingSet(
          of: [UInt8](repeating: 2, count: 16), size: 200 * Self.page, pages: pages([1]))
      ),
      (.damaged, WorkingSet(of: file.identifier, size: 201 * Self.page, pages: pages([1]))),
      (.damaged, WorkingSet(of: file.identifier, size: 200 * Self.page, pages: beyond)),
    ]
    for (kind, set) in sets {
      try set.store(for: file.path)
      let error = #expect(throws: SnapshotError.self) { try WorkingSet(of: file, memory: "ram") }
      #expect(error?.kind == kind)
    }
  }

  @Test("damage to what is needed first is found first, and other damage afterwards")
  func checking() throws {
    try write("1", 1, stored: 10..<60, value: 3)
    let first = pages(Array(10..<20) + [150])
    let unchecked = try open("1").verify(first: first, of: "ram")
    #expect(unchecked.byteCount == UInt64(40 * Self.page))
    try unchecked.verify()
    try damage("1", "ram", page: 20)
    let rest = try open("1").verify(first: first, of: "ram")
    let error = #expect(throws: SnapshotError.self) { try rest.verify() }
    #expect(error?.description.contains("page 20 of memory ram") == true)
    #expect(throws: SnapshotError.self) { try open("1").verify(first: pages(19...20), of: "ram") }
    try write("2", 2, stored: 10..<60, value: 3)
    try damage("2", "video", page: 1)
    #expect(throws: SnapshotError.self, "all but RAM is needed first") {
      try open("2").verify(first: pages([]), of: "ram")
    }
  }

  @Test("of a chain, the newest version of a page is needed first, and others are checked too")
  func chains() throws {
    try write("1", 1, stored: 10..<60, value: 3)
    try write("2", 2, base: 1, stored: 10..<20, value: 4)
    try damage("1", "ram", page: 15)
    let unchecked = try open("2").verify(first: pages(10..<30), of: "ram")
    #expect(unchecked.byteCount == UInt64((50 - 10) * Self.page))
    #expect(throws: SnapshotError.self) { try unchecked.verify() }
    try damage("2", "ram", page: 15)
    #expect(throws: SnapshotError.self) { try open("2").verify(first: pages([15]), of: "ram") }
  }

  @Test("checking ends when nobody wants it any more")
  func ends() throws {
    try write("1", 1, stored: 0..<200, value: 3)
    let unchecked = try open("1").verify(first: pages([]), of: "ram")
    try damage("1", "ram", page: 199)
    var asked = 0
    // Pages are checked in portions; all of these are one.
    #expect(throws: SnapshotError.self) {
      try unchecked.verify {
        asked += 1
        return false
      }
    }
    try write("2", 2, base: 1, stored: 0..<10, value: 3)
    let chain = try open("2").verify(first: pages([]), of: "ram")
    try chain.verify {
      asked += 1
      return false
    }
    #expect(asked == 1, "the base, which is damaged, was not read any more")
  }
}
