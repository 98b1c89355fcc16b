import Brokering
import Supervisor
import Testing

@Suite("The command line of a desktop's VMM")
struct VMMCommandTests {
  private func arguments(
    _ kind: Image.Kind, diskMiB: Int? = nil, _ hardware: Hardware = Hardware(),
    limits: DiskLimits = DiskLimits()
  ) -> [String] {
    let desktop = DesktopID(rawValue: "my-office-12")
    let request = LaunchRequest(
      desktop: desktop, generation: 1, image: Image(kind: kind, path: "/image"), memoryMiB: 64,
      cpus: 2, diskMiB: diskMiB, hardware: hardware, disk: .keep, diskLimits: limits,
      user: nil, keyboardLayout: "en-us")
    let disk = DesktopDisk(path: Self.disk, format: .raw)
    return VMMCommand(
      request, in: DesktopDirectory(desktop: desktop, runtimeRoot: "/run", stateRoot: "/state"),
      disk: kind == .disk || diskMiB != nil ? disk : nil
    ).arguments
  }

  /// The values of an option, in order.
  private func values(_ option: String, _ arguments: [String]) -> [String] {
    zip(arguments, arguments.dropFirst()).filter { $0.0 == option }.map(\.1)
  }

  private static let disk = "/state/desktops/my-office-12/disk.raw"

  @Test("has SeaBIOS, a VGA, AC'97 and an IDE disk where the pool says nothing")
  func defaults() {
    let line = arguments(.disk)
    #expect(values("--firmware", line) == ["bios"])
    #expect(values("--disk", line) == ["\(Self.disk),format=raw,bus=ide"])
    #expect(values("--boot", line) == ["c"])
    #expect(values("--vga", line) == ["std"])
    #expect(values("--audio", line) == ["ac97"])
    #expect(!line.contains("--net") && !line.contains("--usb") && !line.contains("--nvram"))
  }

  @Test("has what the pool says, and the desktop's own UEFI variables")
  func everything() {
    let hardware = Hardware(
      firmware: .uefi, video: .virtio(outputs: 2), network: .user(.off), networkQueues: 2,
      audio: .virtio, usb: true, diskBus: .virtio)
    for line in [arguments(.disk, hardware), arguments(.iso, diskMiB: 10, hardware)] {
      #expect(values("--firmware", line) == ["uefi"])
      #expect(values("--nvram", line) == ["/state/desktops/my-office-12/variables.fd"])
      #expect(values("--disk", line) == ["\(Self.disk),format=raw,bus=virtio"])
      #expect(values("--vga", line) == ["virtio,outputs=2"])
      #expect(values("--net", line) == ["user,host=off,queues=2"])
      #expect(values("--audio", line) == ["virtio"])
      #expect(line.contains("--usb"))
    }
    #expect(values("--boot", arguments(.iso, hardware)) == ["d"])
    #expect(values("--boot", arguments(.iso, diskMiB: 10, hardware)) == ["c,d"])
  }

  @Test("starts a kernel without firmware, with the cards")
  func kernel() {
    let line = arguments(.kernel, Hardware(network: .user(.on), audio: .none))
    #expect(values("--kernel", line) == ["/image"])
    #expect(!line.contains("--firmware") && !line.contains("--nvram") && !line.contains("--disk"))
    #expect(values("--net", line) == ["user,host=on"])
    #expect(values("--audio", line) == ["none"])
  }

  @Test("limits its disk as the pool says")
  func limits() {
    let limits = DiskLimits(
      operations: 500, operationsBurst: 2000, bandwidth: 1 << 20, bandwidthBurst: 1 << 30)
    #expect(
      values("--disk", arguments(.disk, limits: limits)) == [
        "\(Self.disk),format=raw,bus=ide,iops=500,iops-max=2000,bps=1048576,bps-max=1073741824"
      ])
    let some = arguments(.iso, diskMiB: 10, limits: DiskLimits(bandwidth: 1 << 20))
    #expect(values("--disk", some) == ["\(Self.disk),format=raw,bus=ide,bps=1048576"])
  }

  @Test("doubles the commas of paths, where options have others")
  func commas() {
    let desktop = DesktopID(rawValue: "office-1")
    let request = LaunchRequest(
      desktop: desktop, generation: 1, image: Image(kind: .disk, path: "/a,b"), memoryMiB: 64,
      cpus: 1, disk: .keep, user: nil, keyboardLayout: "en-us")
    let line = VMMCommand(
      request, in: DesktopDirectory(desktop: desktop, runtimeRoot: "/r,1", stateRoot: "/s,,2"),
      disk: DesktopDisk(
        path: "/s,,2/disk", format: .qcow2, over: .init(path: "/a,b", format: .raw),
        bases: ["/c,"]),
      goesOn: true
    ).arguments
    #expect(
      values("--disk", line) == ["/s,,,,2/disk,format=qcow2,over=raw:/a,,b,bases=/c,,,bus=ide"])
    #expect(values("--restore", line) == ["/s,,,,2/desktops/office-1/suspended,remove=on"])
    #expect(
      values("--channel", line) == [
        "name=org.qemu.guest_agent.0,socket=/r,,1/desktops/office-1/agent"
      ])
    #expect(
      values("--fw-cfg", line).contains("name=opt/carrel/user,file=/r,,1/desktops/office-1/user"))
    // These are paths and nothing else.
    #expect(values("--control", line) == ["/r,1/desktops/office-1/control"])
  }

  @Test("names a TAP interface by the pool's prefix and the desktop's number")
  func interface() {
    let line = arguments(.disk, Hardware(network: .tap(prefix: "lan")))
    #expect(values("--net", line) == ["tap:lan12"])
    let several = arguments(.disk, Hardware(network: .tap(prefix: "lan"), networkQueues: 8))
    #expect(values("--net", several) == ["tap:lan12,queues=8"])
  }
}
