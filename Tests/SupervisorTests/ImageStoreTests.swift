import Brokering
import Foundation
import LinuxSystem
import Logging
import Supervisor
import TestSupport
import Testing

@Suite("The library of images", .needs("qemu-img"))
struct ImageStoreTests {
  private let directory: TemporaryDirectory
  private let store: ImageStore

  init() throws {
    directory = try TemporaryDirectory()
    store = Self.store(in: directory.path, builder: nil)
  }

  private static func store(in path: String, builder: String?) -> ImageStore {
    ImageStore(
      stateDirectory: path, builder: builder, now: { Timestamp(milliseconds: 1) },
      logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
  }

  /// A disk with something in it, in a format.
  private func makeImage(_ format: String, options: [String] = []) throws -> String {
    let raw = directory.path("source.raw")
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    for index in stride(from: 0, to: bytes.count, by: 4096) { bytes[index] = UInt8(index >> 12) }
    try Files.replace(raw, with: bytes)
    guard format != "raw" else { return raw }
    let path = directory.path("source.\(format)")
    try qemuImg(["convert", "-f", "raw", "-O", format] + options + [raw, path])
    return path
  }

  private func qemuImg(_ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/qemu-img")
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }

  /// The image once nothing is done to it any more.
  private func settled(_ name: String) async throws -> LibraryImage {
    while true {
      let image = try await store.image(ImageName(rawValue: name))
      guard case .making = image.state else { return image }
      try await Task.sleep(for: .milliseconds(10))
    }
  }

  @Test(
    "a disk of any format becomes the same raw disk",
    arguments: [
      ("raw", []), ("qcow2", []), ("qcow2", ["-o", "compat=0.10"]), ("qcow2", ["-c"]),
      ("vmdk", []), ("vmdk", ["-o", "subformat=streamOptimized"]), ("vdi", []),
    ])
  func formats(format: String, options: [String]) async throws {
    let file = try makeImage(format, options: options)
    try await store.importFile(file, as: ImageName(rawValue: "office"))
    let image = try await settled("office")
    #expect(image.state == .ready && image.kind == .disk && image.size == 1 << 20)
    #expect(image.allocated > 0)
    #expect(image.origin == "imported from \(file)")
    #expect(try Files.read(image.path) == Files.read(directory.path("source.raw")))
  }

  @Test("an ISO is known by what is in it, and kept as it is")
  func iso() async throws {
    let path = directory.path("installer")
    var bytes = [UInt8](repeating: 0, count: 40_960)
    bytes.replaceSubrange(32_769..<32_774, with: Array("CD001".utf8))
    try Files.replace(path, with: bytes)
    try await store.importFile(path, as: ImageName(rawValue: "installer"))
    let image = try await settled("installer")
    #expect(image.kind == .iso && image.path.hasSuffix("/image.iso"))
    #expect(try Files.read(image.path) == bytes)
  }

  @Test("an ELF kernel is known as one, whatever its size, and kept as it is")
  func kernel() async throws {
    let path = directory.path("demo.elf")
    for (name, count) in [("odd", 0), ("even", 512 - SmallGuest.sleeping.count % 512)] {
      let kernel = SmallGuest.sleeping + [UInt8](repeating: 0x90, count: count)
      try Files.replace(path, with: kernel)
      try await store.importFile(path, as: ImageName(rawValue: name))
      let image = try await settled(name)
      #expect(image.state == .ready && image.kind == .kernel)
      #expect(image.path.hasSuffix("/\(name)/image.elf"))
      #expect(try Files.read(image.path) == kernel)
      try await store.delete(image.name, isInUse: { false })
      #expect(!Files.exists(directory.path("images/\(name)")))
    }
    // Of another byte order, for another processor, and not linked.
    for (offset, value) in [(5, 2), (18, 183), (16, 1)] {
      var other = SmallGuest.sleeping + [UInt8](repeating: 0, count: 4096)
      other[offset] = UInt8(value)
      try Files.replace(path, with: other)
      let error = await #expect(throws: BrokerError.self) {
        try await store.importFile(path, as: ImageName(rawValue: "x"))
      }
      #expect(error?.context.contains("no kernel for x86: give a linked one") == true)
    }
  }

  @Test("what is no image, or not a whole one, is refused and leaves nothing")
  func refusals() async throws {
    let odd = directory.path("odd")
    try Files.replace(odd, with: [1, 2, 3])
    let broken = directory.path("broken.qcow2")
    let header: [UInt8] = [0x51, 0x46, 0x49, 0xFB] + Array(repeating: 0xFF, count: 600)
    try Files.replace(broken, with: header)
    let base = try makeImage("qcow2")
    let overlay = directory.path("overlay.qcow2")
    try qemuImg(["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay])
    let external = directory.path("external.qcow2")
    try qemuImg([
      "create", "-q", "-f", "qcow2", "-o", "data_file=\(directory.path("data"))", external, "1M",
    ])
    let flat = directory.path("flat.vmdk")
    try qemuImg(["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "1M"])
    let cases = [
      (odd, "not a whole number of sectors"), (broken, "damaged qcow2"),
      (overlay, "overlay over"), (external, "its data is in"), (flat, "its data is in other files"),
      ("/nonexistent", "cannot be read"), ("relative", "not an absolute path"),
      (directory.path, "is not a file"),
    ]
    for (file, reason) in cases {
      let error = await #expect(throws: BrokerError.self) {
        try await store.importFile(file, as: ImageName(rawValue: "x"))
      }
      #expect(error?.kind == .invalid)
      #expect(error?.description.contains(reason) == true, "\(file): \(error?.description ?? "")")
    }
    #expect(try await store.images().isEmpty)
  }

  @Test("a name is taken from the moment that making begins")
  func names() async throws {
    let name = ImageName(rawValue: "office")
    let file = try makeImage("raw")
    try await store.importFile(file, as: name)
    let error = await #expect(throws: BrokerError.self) {
      try await store.importFile(file, as: name)
    }
    #expect(error?.kind == .exists)
    _ = try await settled("office")
    await #expect(throws: BrokerError.self) { try await store.importFile(file, as: name) }
  }

  @Test("an image that was given to a pool meanwhile is not deleted")
  func use() async throws {
    let name = ImageName(rawValue: "office")
    try await store.importFile(try makeImage("raw"), as: name)
    _ = try await settled("office")
    let error = await #expect(throws: BrokerError.self) {
      try await store.delete(name, isInUse: { true })
    }
    #expect(error?.kind == .conflict)
    #expect(try await settled("office").state == .ready)
    try await store.delete(name, isInUse: { false })
    #expect(try await store.images().isEmpty)
    #expect(!Files.exists(directory.path("images/office")))
    await #expect(throws: BrokerError.self) { try await store.delete(name, isInUse: { false }) }
  }

  @Test("an image that desktops' disks are based on is not deleted, whatever happens meanwhile")
  func bases() async throws {
    let name = ImageName(rawValue: "office")
    try await store.importFile(try makeImage("raw"), as: name)
    let image = try await settled("office")
    let desktop = directory.path("desktops/office-7")
    try FileManager.default.createDirectory(atPath: desktop, withIntermediateDirectories: true)
    try qemuImg([
      "create", "-q", "-f", "qcow2", "-b", image.path, "-F", "raw", "\(desktop)/disk-1.qcow2",
    ])
    try qemuImg([
      "create", "-q", "-f", "qcow2", "-b", "disk-1.qcow2", "-F", "qcow2",
      "\(desktop)/disk-3.qcow2",
    ])
    let disks = try await store.image(name).disks
    #expect(disks.map(\.name) == ["disk-1.qcow2", "disk-3.qcow2"])
    #expect(disks.map(\.base) == ["office/image.raw", "office-7/disk-1.qcow2"])
    #expect(disks.map(\.isCurrent) == [false, true])
    #expect(disks.allSatisfy { $0.desktop.rawValue == "office-7" && $0.allocated > 0 })
    let error = await #expect(throws: BrokerError.self) {
      try await store.delete(name, isInUse: { false })
    }
    #expect(error?.kind == .conflict && error?.description.contains("office-7") == true)

    // As after a kill between hiding the image and looking who needs it.
    try FileManager.default.moveItem(
      atPath: directory.path("images/office/image.json"),
      toPath: directory.path("images/office/deleted.json"))
    let next = Self.store(in: directory.path, builder: nil)
    #expect(try await next.image(name).state == .ready)
    #expect(Files.exists(image.path))
    try FileManager.default.removeItem(atPath: desktop)
    try await next.delete(name, isInUse: { false })
    #expect(!Files.exists(image.path))
  }

  @Test("what a carreld that was killed left half made is gone at the next start")
  func remains() async throws {
    try FileManager.default.createDirectory(
      atPath: directory.path("images/half"), withIntermediateDirectories: true)
    try Files.replace(directory.path("images/half/image.new"), with: [1])
    let store = Self.store(in: directory.path, builder: nil)
    #expect(try await store.images().isEmpty)
    #expect(!Files.exists(directory.path("images/half")))
  }

  /// A program in the builder's place.
  private func builder(_ script: String) throws -> String {
    let path = directory.path("builder")
    try Files.replace(path, with: Array("#!/bin/bash\n\(script)\n".utf8), permissions: 0o755)
    return path
  }

  private func recipe() throws -> ImageRecipe {
    try ImageRecipe(suite: "bookworm", desktop: .none, sizeMiB: 2048, mirror: nil)
  }

  @Test("a builder tells how far it is, and its failure is the image's problem")
  func building() async throws {
    let gate = directory.path("gate")
    let program = try builder(
      """
      echo "40% unpacking"
      until [ -e \(gate) ]; do read -t 0.05 <> <(:) || true; done
      echo "no such package" >&2
      exit 3
      """)
    let store = Self.store(in: directory.path, builder: program)
    let name = ImageName(rawValue: "debian")
    try await store.build(try recipe(), as: name)
    while try await store.image(name).state != .making(step: "unpacking", percent: 40) {
      try await Task.sleep(for: .milliseconds(10))
    }
    try Files.replace(gate, with: [])
    while case .making = try await store.image(name).state {
      try await Task.sleep(for: .milliseconds(10))
    }
    guard case .failed(let problem) = try await store.image(name).state else {
      Issue.record("it did not fail")
      return
    }
    #expect(problem.contains("unpacking failed: no such package"))
    #expect(!Files.exists(directory.path("images/debian")))
    try await store.delete(name, isInUse: { false })
    #expect(try await store.images().isEmpty)
  }

  @Test("deleting an image that is being made ends its making")
  func cancelling() async throws {
    let ended = directory.path("ended")
    let program = try builder(
      """
      trap 'touch \(ended); exit 1' TERM
      echo "1% waiting"
      while true; do read -t 1 <> <(:) || true; done
      """)
    let store = Self.store(in: directory.path, builder: program)
    let name = ImageName(rawValue: "debian")
    try await store.build(try recipe(), as: name)
    while try await store.image(name).state != .making(step: "waiting", percent: 1) {
      try await Task.sleep(for: .milliseconds(10))
    }
    try await store.delete(name, isInUse: { false })
    while case .making = try await store.image(name).state {
      try await Task.sleep(for: .milliseconds(10))
    }
    #expect(Files.exists(ended) && !Files.exists(directory.path("images/debian")))
  }

  @Test("a recipe that cannot be is refused")
  func recipes() {
    #expect(throws: BrokerError.self) {
      try ImageRecipe(suite: "../etc", desktop: .none, sizeMiB: 4096, mirror: nil)
    }
    #expect(throws: BrokerError.self) {
      try ImageRecipe(suite: "bookworm", desktop: .none, sizeMiB: 100, mirror: nil)
    }
    #expect(throws: BrokerError.self) {
      try ImageRecipe(suite: "bookworm", desktop: .none, sizeMiB: 4096, mirror: "file:///etc")
    }
  }
}
