import DeviceModel
import Glibc
import LinuxSystem
import Snapshot
import TestSupport
import Testing

@Suite("Snapshots in files") struct SnapshotFileTests {
  private let files: TemporaryDirectory
  private static let page = DirtyPages.pageSize

  init() throws { files = try TemporaryDirectory() }

  private var path: String { files.path("snapshot") }

  private static func identifier(_ number: UInt8) -> [UInt8] {
    [UInt8](repeating: number, count: 16)
  }

  /// Pages that each have one byte throughout.
  private static func pages(_ values: [UInt8]) -> [UInt8] {
    values.flatMap { [UInt8](repeating: $0, count: page) }
  }

  private func store(_ values: [UInt8], at first: Int, _ memory: MemoryWriter) throws {
    try Self.pages(values).withUnsafeBytes { try memory.store($0, at: first) }
  }

  /// 200 pages: 1, 1, 2 at 3; 9 at 199.
  @discardableResult
  private func write(
    to path: String? = nil, _ number: UInt8 = 1, base: UInt8? = nil, section: [UInt8] = [1, 2, 3],
    more: (MemoryWriter) throws -> Void = { _ in }
  ) throws -> String {
    let path = path ?? self.path
    let writer = try SnapshotWriter(
      path: path, identifier: Self.identifier(number), base: base.map(Self.identifier),
      created: 1_700_000_000)
    let memory = try writer.addMemory("ram", size: 200 * Self.page)
    try store([1, 1, 2], at: 3, memory)
    try store([9], at: 199, memory)
    try more(memory)
    try writer.add("devices", section)
    try writer.finish()
    return path
  }

  /// One byte for each page, as a machine would have it.
  private func contents(_ chain: SnapshotChain, _ name: String = "ram") throws -> [UInt8] {
    let size = try #require(chain.newest.memory(name)?.size)
    var values = [UInt8](repeating: 0, count: size / Self.page)
    for part in try #require(chain.parts(of: name)) {
      var bytes = [UInt8](repeating: 0, count: part.pages.count * Self.page)
      let count = try bytes.withUnsafeMutableBytes { buffer in
        try part.file.descriptor.read(into: buffer, offset: part.offset)
      }
      #expect(count == bytes.count)
      for (index, page) in part.pages.enumerated() {
        let here = bytes[index * Self.page..<(index + 1) * Self.page]
        #expect(here.allSatisfy { $0 == here.first })
        values[page] = here.first ?? 0
      }
    }
    return values
  }

  private func open(_ path: String? = nil) throws -> SnapshotChain {
    let chain = try SnapshotChain(path: path ?? self.path) { identifier in
      files.path("\(identifier[0])")
    }
    try chain.verify()
    return chain
  }

  private static let first: [UInt8] =
    [0, 0, 0, 1, 1, 2] + [UInt8](repeating: 0, count: 193) + [9]

  @Test("what was written is read back, and zero pages take no room")
  func roundTrip() throws {
    try write { try store([0, 0, 0, 0], at: 100, $0) }
    let chain = try open()
    let file = chain.newest
    #expect(file.identifier == Self.identifier(1) && file.base == nil)
    #expect(file.created == 1_700_000_000)
    #expect(file.sectionNames == ["devices"] && file.section("devices") == [1, 2, 3])
    #expect(file.section("other") == nil && file.memory("other") == nil)
    #expect(file.storedBytes == UInt64(4 * Self.page))
    #expect(try contents(chain) == Self.first)
    var status = stat()
    #expect(stat(path, &status) == 0)
    #expect(status.st_blocks * 512 <= 16 * Self.page)
  }

  @Test("a page that is stored again is what it was last")
  func storedAgain() throws {
    try write {
      try store([7, 0], at: 4, $0)
      try store([8, 8], at: 20, $0)
      try store([0], at: 21, $0)
    }
    var expected = Self.first
    expected.replaceSubrange(4...5, with: [7, 0])
    expected[20] = 8
    #expect(try contents(open()) == expected)
  }

  @Test("a snapshot completes its base, with pages that became zero")
  func differential() throws {
    try write(to: files.path("1"), 1) { try store([5, 5, 5], at: 10, $0) }
    try write(to: files.path("2"), 2, base: 1) { try store([6, 0], at: 11, $0) }
    try write(to: files.path("3"), 3, base: 2) { try store([4], at: 12, $0) }
    var expected = Self.first
    expected.replaceSubrange(10...12, with: [5, 6, 0])
    #expect(try contents(open(files.path("2"))) == expected)
    expected[12] = 4
    // What completes another takes no more of its file than it has pages, whatever their order.
    for name in ["2", "3"] { #expect(try files.read(name).count < 20 * Self.page) }
    try write(to: files.path("4"), 4, base: 3) {
      try store([7, 7, 7, 7], at: 9, $0)
      try store([3, 0, 2], at: 8, $0)
      try store([5], at: 9, $0)
    }
    var later = expected
    later[12] = 7
    later.replaceSubrange(8...11, with: [3, 5, 2, 7])
    #expect(try contents(open(files.path("4"))) == later)
    #expect(try SnapshotFile(path: files.path("4")).storedBytes == UInt64(9 * Self.page))
    let chain = try open(files.path("3"))
    #expect(chain.files.map(\.identifier) == [3, 2, 1].map(Self.identifier))
    #expect(try contents(chain) == expected)
  }

  @Test("a base that is missing, another, or of another size is refused")
  func bases() throws {
    try write(base: 1)
    #expect(throws: SnapshotError.self) { try open() }
    let cases: [(UInt8, Int)] = [(2, 200), (1, 201)]
    for (number, size) in cases {
      let writer = try SnapshotWriter(
        path: files.path("1"), identifier: Self.identifier(number), created: 0)
      _ = try writer.addMemory("ram", size: size * Self.page)
      try writer.finish()
      let error = #expect(throws: SnapshotError.self) { try open() }
      #expect(error?.kind == .wrongBase)
    }
    // One that completes itself.
    try write(to: files.path("1"), 1, base: 1)
    let error = #expect(throws: SnapshotError.self) { try open() }
    #expect(error?.kind == .wrongBase)
  }

  @Test(
    "a bit that flipped anywhere is found, unless it says nothing", arguments: [nil, 1 as UInt8?])
  func flippedBits(base: UInt8?) throws {
    try write(to: files.path("1"))
    try write(2, base: base)
    let pages = base == nil ? 200 : 5
    let bytes = try files.read("snapshot")
    let expected = try contents(open())
    var found = 0
    // Every byte that is something, and some that are padding.
    for place in bytes.indices where bytes[place] != 0 || place % 997 == 0 {
      // A page's bytes are alike.
      if place > 4096, place < pages * Self.page, place % 512 != 7 { continue }
      var damaged = bytes
      damaged[place] ^= 1 << UInt8(place % 8)
      try files.write(damaged, to: "damaged")
      do {
        let chain = try open(files.path("damaged"))
        #expect(try contents(chain) == expected && chain.newest.section("devices") == [1, 2, 3])
        #expect(bytes[place] == 0)
      } catch let error as SnapshotError {
        #expect([.damaged, .notASnapshot, .tooNew].contains(error.kind))
        found += 1
      }
    }
    #expect(found > 300, "\(found)")
  }

  @Test("a file that was cut short is refused, wherever", arguments: [nil, 1 as UInt8?])
  func cutShort(base: UInt8?) throws {
    try write(to: files.path("1"))
    try write(2, base: base)
    let bytes = try files.read("snapshot")
    for count in stride(from: 0, to: bytes.count, by: 1021) {
      try files.write(bytes[..<count], to: "short")
      #expect(throws: SnapshotError.self) { try open(files.path("short")) }
    }
  }

  @Test("a newer format is refused as such")
  func newer() throws {
    try write()
    var bytes = try files.read("snapshot")
    #expect(bytes[8] == 1, "an earlier Carrel reads what is whole")
    bytes[8] = 3
    try files.write(bytes, to: "newer")
    let error = #expect(throws: SnapshotError.self) { try open(files.path("newer")) }
    #expect(error?.kind == .tooNew && error?.context.contains("version 3") == true)
  }

  @Test("until it is whole, what was there before stays")
  func abandoned() throws {
    try write()
    let before = try files.read("snapshot")
    do {
      let writer = try SnapshotWriter(
        path: path, identifier: Self.identifier(2), created: 0)
      let memory = try writer.addMemory("ram", size: 4 * Self.page)
      try store([1, 2, 3, 4], at: 0, memory)
    }
    #expect(try files.read("snapshot") == before)
    #expect(try files.run("ls").output == "snapshot\n")
  }

  @Test("a disk that is full leaves the old one, and says so", .needsRoot)
  func fullDisk() throws {
    let place = files.path("small")
    #expect(try files.run("mkdir small && mount -t tmpfs -o size=64k tmpfs small").status == 0)
    defer { umount(place) }
    try write(to: "\(place)/snapshot")
    let before = try Files.read("\(place)/snapshot")
    let error = #expect(throws: SnapshotError.self) {
      try write(to: "\(place)/snapshot", 2) {
        try store([UInt8](repeating: 3, count: 100), at: 50, $0)
      }
    }
    #expect(error?.kind == .noSpace)
    #expect(error?.description.contains("no room") == true)
    #expect(try Files.read("\(place)/snapshot") == before)
    #expect(try files.run("ls small").output == "snapshot\n")
  }

  private static let corpus = "\(Programs.repository)/Tests/SnapshotTests/Corpus"

  @Test("one that an earlier Carrel wrote opens")
  func corpus() throws {
    let chain = try open("\(Self.corpus)/version-1")
    #expect(chain.newest.identifier == Self.identifier(7))
    #expect(chain.newest.created == 1_700_000_000)
    #expect(try contents(chain) == [0, 1, 2, 0, 0, 0, 0, 3])
    #expect(try contents(chain, "video") == [0, 4])
    #expect(chain.newest.section("devices") == Array("devices".utf8))
  }

  @Test("so does one that completes it")
  func corpusOfTwo() throws {
    let chain = try SnapshotChain(path: "\(Self.corpus)/version-2") { identifier in
      identifier == Self.identifier(7) ? "\(Self.corpus)/version-1" : nil
    }
    try chain.verify()
    #expect(chain.newest.identifier == Self.identifier(8))
    #expect(try contents(chain) == [5, 1, 0, 6, 0, 0, 0, 3])
    #expect(try contents(chain, "video") == [7, 0])
    #expect(chain.newest.section("devices") == Array("later".utf8))
  }

  @Test("another kind of file is none")
  func other() throws {
    try files.write(Array("QFI".utf8) + [UInt8](repeating: 0, count: 5000), to: "other")
    let error = #expect(throws: SnapshotError.self) { try open(files.path("other")) }
    #expect(error?.kind == .notASnapshot)
    let missing = #expect(throws: SnapshotError.self) { try open(files.path("missing")) }
    #expect(missing?.kind == .notFound)
  }
}
