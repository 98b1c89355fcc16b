import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("A desktop's own disk", .needsKVM, .serialized)
struct DiskTests {
  @Test("is a sparse copy of the image, kept or made afresh as asked")
  func copies() async throws {
    let running = try RunningSupervisor()
    let image = running.directory.path("image.raw")
    let file = try FileDescriptor.open(image, [.writable, .create])
    try file.setSize(64 << 20)
    try file.writeAll(Array("master".utf8))
    func request(_ generation: UInt64, _ disk: LaunchRequest.Disk) -> LaunchRequest {
      LaunchRequest(
        desktop: DesktopID(rawValue: "office-1"), generation: generation,
        image: Image(kind: .disk, path: image), memoryMiB: 16, cpus: 1, disk: disk, user: nil,
        keyboardLayout: "en-us")
    }
    let office = DesktopID(rawValue: "office-1")
    let disk = running.settings.stateDirectory + "/desktops/office-1/disk.raw"

    try await running.supervisor.start(request(1, .fresh))
    try await running.supervisor.stop(office, graceSeconds: nil)
    var status = stat()
    #expect(stat(disk, &status) == 0)
    #expect(status.st_size == 64 << 20)
    #expect(status.st_blocks * 512 < 1 << 20, "holes stay holes")
    #expect(try FileDescriptor.open(disk).read(upTo: 6) == Array("master".utf8))

    try FileDescriptor.open(disk, .writable).writeAll(Array("alices".utf8))
    try await running.supervisor.start(request(2, .keep))
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(try FileDescriptor.open(disk).read(upTo: 6) == Array("alices".utf8))

    try await running.supervisor.start(request(3, .fresh))
    try await running.supervisor.discard(office)
    #expect(!Files.exists(disk))
    #expect(try FileDescriptor.open(image).read(upTo: 6) == Array("master".utf8))
  }

  @Test("is an overlay over an image of the library, and holds what the desktop writes alone")
  func overlays() async throws {
    let running = try RunningSupervisor()
    let state = running.settings.stateDirectory
    try FileManager.default.createDirectory(
      atPath: "\(state)/images/office", withIntermediateDirectories: true)
    let image = "\(state)/images/office/image.raw"
    let contents = [UInt8](repeating: 0x55, count: 4 << 20)
    try Files.replace(image, with: contents)
    func start(_ number: Int, _ generation: UInt64, _ disk: LaunchRequest.Disk) async throws {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: DesktopID(rawValue: "office-\(number)"), generation: generation,
          image: Image(kind: .disk, path: image), memoryMiB: 16, cpus: 1, disk: disk, user: nil,
          keyboardLayout: "en-us"))
    }
    func overlay(_ number: Int) -> String { "\(state)/desktops/office-\(number)/disk-1.qcow2" }
    // One base serves both at once.
    try await start(1, 1, .fresh)
    try await start(2, 1, .fresh)
    for number in 1...2 {
      var status = stat()
      #expect(stat(overlay(number), &status) == 0 && status.st_blocks * 512 < 1 << 20)
      try await running.supervisor.stop(
        DesktopID(rawValue: "office-\(number)"), graceSeconds: nil)
    }
    let write = "write -P 0x66 1M 64k"
    let (status, output) = try running.directory.run("qemu-io -c '\(write)' \(overlay(1))")
    #expect(status == 0, "\(output)")
    let written = try Files.read(overlay(1))
    try await start(1, 2, .keep)
    try await running.supervisor.stop(DesktopID(rawValue: "office-1"), graceSeconds: nil)
    #expect(try Files.read(overlay(1)) == written)
    try await start(1, 3, .fresh)
    try await running.supervisor.stop(DesktopID(rawValue: "office-1"), graceSeconds: nil)
    let (_, compared) = try running.directory.run("qemu-img compare \(overlay(1)) \(overlay(2))")
    #expect(compared.contains("Images are identical"), "\(compared)")
    #expect(try Files.read(image) == contents)
  }

  @Test("is found in directories with commas in their names, and so is what is saved")
  func commas() async throws {
    let running = try RunningSupervisor {
      $0.stateDirectory += ",a,,b"
      $0.runtimeDirectory += ",c"
    }
    let state = running.settings.stateDirectory
    try FileManager.default.createDirectory(
      atPath: "\(state)/images/office", withIntermediateDirectories: true)
    try Files.makeDirectory(running.settings.runtimeDirectory)
    let image = "\(state)/images/office/image.raw"
    try Files.replace(image, with: [UInt8](repeating: 0x55, count: 1 << 20))
    let office = DesktopID(rawValue: "office-1")
    func start(_ generation: UInt64, _ disk: LaunchRequest.Disk, resumes: Bool) async throws {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: office, generation: generation, image: Image(kind: .disk, path: image),
          memoryMiB: 16, cpus: 1, disk: disk, resumes: resumes, user: nil,
          keyboardLayout: "en-us"))
    }
    try await start(1, .fresh, resumes: false)
    let overlay = "\(state)/desktops/office-1/disk-1.qcow2"
    #expect(Files.exists(overlay))
    try await running.supervisor.suspend(office)
    try await start(2, .keep, resumes: true)
    try await running.supervisor.stop(office, graceSeconds: nil)
    let (_, info) = try running.directory.run("qemu-img info -U '\(overlay)'")
    #expect(info.contains("backing file: \(image)"), "\(info)")
    try await running.supervisor.discard(office)
    #expect(!Files.exists(overlay))
  }

  @Test("has UEFI's variables beside it, kept or made afresh as it is")
  func variables() async throws {
    let running = try RunningSupervisor()
    let image = try running.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "image.raw")
    let office = DesktopID(rawValue: "office-1")
    func start(_ generation: UInt64, _ disk: LaunchRequest.Disk) async throws {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: office, generation: generation, image: Image(kind: .disk, path: image),
          memoryMiB: 64, cpus: 1, hardware: Hardware(firmware: .uefi, diskBus: .virtio),
          disk: disk, user: nil, keyboardLayout: "en-us"))
    }
    let file = running.settings.stateDirectory + "/desktops/office-1/variables.fd"
    /// The end of the flash is spare, for the firmware's housekeeping.
    func mark() throws -> [UInt8] { try Files.read(file).suffix(8) }
    try await start(1, .fresh)
    try await running.supervisor.stop(office, graceSeconds: nil)
    let fresh = try mark()
    let marked = try Files.read(file).dropLast(8) + Array("alice's ".utf8)
    try FileDescriptor.open(file, .writable).writeAll(marked)

    try await start(2, .keep)
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(try mark() == Array("alice's ".utf8))
    try await start(3, .fresh)
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(try mark() == fresh)
    try await running.supervisor.discard(office)
    #expect(!Files.exists(file))
  }

  @Test(
    "that does not fit is refused as such and leaves nothing half-made",
    .needsRoot)
  func full() async throws {
    let small = try SmallDisk(kibibytes: 1024)
    let running = try RunningSupervisor { $0.stateDirectory = small.path }
    let image = try running.directory.write(
      [UInt8](repeating: 0x55, count: 4 << 20), to: "image.raw")
    let error = await #expect(throws: LaunchError.self) {
      try await running.supervisor.start(
        LaunchRequest(
          desktop: DesktopID(rawValue: "office-1"), generation: 1,
          image: Image(kind: .disk, path: image), memoryMiB: 16, cpus: 1, disk: .fresh,
          user: nil, keyboardLayout: "en-us"))
    }
    #expect(error?.kind == .noSpace)
    #expect(!Files.exists(small.path + "/desktops/office-1/disk.raw"))
    #expect(!Files.exists(small.path + "/desktops/office-1/disk.raw.new"))
  }
}
