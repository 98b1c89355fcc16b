import Foundation
import LinuxSystem
import TestSupport
import Testing

/// What `carrel-vmm run` is given, and what it must say.
struct BadGuest: CustomTestStringConvertible, Sendable {
  let what: String
  /// Arguments; `@` stands for the file.
  let arguments: [String]
  /// Made from the demo desktop's ELF; `nil` makes none.
  let file: @Sendable ([UInt8]) -> [UInt8]?
  /// The name of the file, and words of the remedy.
  let says: [String]

  var testDescription: String { what }

  static let all = [
    BadGuest(
      what: "a kernel that is not ELF", arguments: ["--kernel", "@"],
      file: { _ in Array("#!/bin/sh\necho I am no kernel\n".utf8) },
      says: ["@ is not an ELF file", "give an uncompressed ELF kernel"]),
    BadGuest(
      what: "a truncated ELF", arguments: ["--kernel", "@"], file: { Array($0.prefix(3000)) },
      says: ["@ is truncated", "copy it again"]),
    BadGuest(
      what: "a segment outside RAM", arguments: ["--kernel", "@"],
      file: { moved($0, to: 0x10_0000_0000) },
      says: ["@ wants", "at 0x1000000000", "give it more memory or link the kernel elsewhere"]),
    BadGuest(
      what: "an ISO that is not there", arguments: ["--cdrom", "@"], file: { _ in nil },
      says: ["@ does not exist", "check the path"]),
    BadGuest(
      what: "a raw disk of odd size", arguments: ["--disk", "@,format=raw,bus=ide"],
      file: { _ in [UInt8](repeating: 0, count: 700) },
      says: ["@ has 700 bytes", "copy it again or convert it"]),
  ]

  /// The kernel with its first loaded segment at another address (ELF-64: e_phoff at 32,
  /// p_paddr at 24 of a program header of 56 bytes).
  static func moved(_ kernel: [UInt8], to address: UInt64) -> [UInt8] {
    var kernel = kernel
    var header = Int(kernel[32]) | Int(kernel[33]) << 8
    while kernel[header] != 1 { header += 56 }
    let bytes = (0..<8).map { UInt8(truncatingIfNeeded: address >> ($0 * 8)) }
    kernel.replaceSubrange(header + 24..<header + 32, with: bytes)
    return kernel
  }
}

extension EndToEnd {
  @Suite("A guest that cannot be")
  struct BadGuestTests {
    @Test("is refused with its name and the remedy, and leaves nothing", arguments: BadGuest.all)
    func refused(_ guest: BadGuest) async throws {
      let directory = try TemporaryDirectory()
      let path = directory.path("image")
      if let bytes = guest.file(try Files.read(try DemoDesktop.path())) {
        try directory.write(bytes, to: "image")
      }
      let arguments = guest.arguments.map { $0.replacingOccurrences(of: "@", with: path) }
      let outcome = try await Self.run(arguments, in: directory)
      for words in guest.says {
        let expected = words.replacingOccurrences(of: "@", with: path)
        #expect(outcome.complaint.contains(expected))
      }
      try Self.expectNothingLeft(outcome, in: directory)
    }

    @Test(
      "without KVM there is no machine: missing, or something else in its place", .needsRoot)
    func withoutKVM() async throws {
      let kernel = try DemoDesktop.path()
      for (mount, words) in [
        ("mount -t tmpfs none /dev", ["there is no /dev/kvm", "load the kvm_intel or kvm_amd"]),
        ("mount --bind /dev/zero /dev/kvm", ["/dev/kvm is not KVM's device"]),
      ] {
        let directory = try TemporaryDirectory()
        let command = "\(mount) && exec \"$@\""
        let outcome = try await Program.run(
          "/usr/bin/unshare",
          ["-m", "/bin/sh", "-c", command, "sh"] + Self.command(["--kernel", kernel], directory),
          in: directory)
        for words in words { #expect(outcome.complaint.contains(words)) }
        try Self.expectNothingLeft(outcome, in: directory)
      }
    }

    @Test("a disk that another guest writes is refused with the holder's number")
    func locked() async throws {
      let directory = try TemporaryDirectory()
      let disk = directory.path("disk.raw")
      try FileDescriptor.open(disk, [.writable, .create]).setSize(1 << 20)
      let holder = try ChildProcess(
        .init(
          Programs.built("carrel-vmm"),
          ["run", "--memory", "16M", "--disk", disk, "--control", directory.path("holder")]))
      defer {
        try? holder.handle.send(.kill)
        _ = try? holder.wait()
      }
      _ = try UnixSocket.connect(
        to: directory.path("holder"), kind: .stream, offeredBy: holder.handle)
      let outcome = try await Self.run(["--disk", disk], in: directory)
      #expect(
        outcome.complaint.contains(
          "\(disk) is in use by another VMM (process "
            + "\(holder.handle.identifier))"))
      #expect(outcome.complaint.contains("give each guest a copy of its own"))
      try Self.expectNothingLeft(outcome, in: directory)
    }

    @Test("a VNC port that is taken is named")
    func port() async throws {
      let directory = try TemporaryDirectory()
      let taken = try TakenPort()
      let outcome = try await Self.run(
        ["--kernel", try DemoDesktop.path(), "--vnc", "127.0.0.1:\(taken.number)"], in: directory,
        hasDisplayLink: false)
      #expect(outcome.complaint.contains("127.0.0.1:\(taken.number)"))
      #expect(outcome.complaint.contains("choose another port"))
      try Self.expectNothingLeft(outcome, in: directory)
    }

    private static func command(
      _ arguments: [String], _ directory: TemporaryDirectory, hasDisplayLink: Bool = true
    ) -> [String] {
      [Programs.built("carrel-vmm"), "run", "--control", directory.path("control")]
        + ["--runtime-directory", directory.path("run")]
        + (hasDisplayLink ? ["--display-link", directory.path("display")] : []) + arguments
    }

    private static func run(
      _ arguments: [String], in directory: TemporaryDirectory, hasDisplayLink: Bool = true
    ) async throws -> Outcome {
      let words = command(arguments, directory, hasDisplayLink: hasDisplayLink)
      return try await Program.run(words[0], Array(words.dropFirst()), in: directory)
    }

    private static func expectNothingLeft(
      _ outcome: Outcome, in directory: TemporaryDirectory
    ) throws {
      #expect(outcome.exit == .exited(1))
      #expect(outcome.output.isEmpty)
      #expect(outcome.complaint.split(separator: "\n").count == 1, "\(outcome.complaint)")
      #expect(!Files.exists(directory.path("control")))
      #expect(!Files.exists(directory.path("display")))
      let record = try JSONDecoder().decode(
        ExitAnswer.self, from: Data(try Files.read(directory.path("run/exit.json"))))
      #expect(record.reason == "startup-failed")
      #expect(outcome.complaint.contains(record.detail))
    }
  }
}
