import Brokering
import Glibc
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
