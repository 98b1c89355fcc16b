import Brokering
import Foundation
import LinuxSystem
import Logging
import Supervisor
import TestSupport
import Testing

/// The real builder, with what Debian's mirror gives.
@Suite(
  "Images that are built of Debian", .needsRoot, .serialized,
  .needs("debootstrap", "qemu-img", "debugfs", "e2fsck", "sfdisk", "unshare"))
struct ImageBuildTests {
  private let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  @Test("one that cannot be built is none, and why is told")
  func failing() async throws {
    let store = store()
    let name = ImageName(rawValue: "nowhere")
    let mirror = "http://127.0.0.1:1/debian"
    try await store.build(
      try ImageRecipe(suite: "bookworm", desktop: .none, sizeMiB: 2048, mirror: mirror), as: name)
    while case .making = try await store.image(name).state {
      try await Task.sleep(for: .milliseconds(20))
    }
    guard case .failed(let problem) = try await store.image(name).state else {
      Issue.record("it did not fail")
      return
    }
    #expect(problem.contains("fetching Debian bookworm failed"), "\(problem)")
    #expect(problem.contains(mirror), "\(problem)")
    #expect(!Files.exists(directory.path("images/nowhere")))
    let loops = try directory.run("losetup --list --output BACK-FILE").output
    #expect(!loops.contains(directory.path("images")), "nothing stays attached")
  }

  @Test(
    "a Debian is whole, starts its agent, and takes a viewer's size where it has a desktop", .isSlow
  )
  func built() async throws {
    for desktop in [ImageRecipe.Desktop.none, .lxqt] {
      let image = try await build(desktop)
      let info = try directory.run("qemu-img info \(image.path)").output
      #expect(info.contains("file format: raw"), "\(info)")
      try checkBoot(image.path)
      try check(desktop, image.path)
    }
    let loops = try directory.run("losetup --list --output BACK-FILE").output
    #expect(!loops.contains(directory.path("images")), "nothing stays attached")
  }

  private func store() -> ImageStore {
    ImageStore(
      stateDirectory: directory.path,
      builder: "\(Programs.repository)/assets/images/carrel-image-build",
      now: { Timestamp(milliseconds: 1) },
      logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
  }

  /// Builds one, and looks at what is told meanwhile.
  private func build(_ desktop: ImageRecipe.Desktop) async throws -> LibraryImage {
    let store = store()
    let name = ImageName(rawValue: desktop.rawValue)
    let recipe = try ImageRecipe(suite: "bookworm", desktop: desktop, sizeMiB: 8192, mirror: nil)
    try await store.build(recipe, as: name)
    var (steps, percents): ([String], [Int]) = ([], [])
    while case .making(let step, let percent) = try await store.image(name).state {
      if steps.last != step { steps.append(step) }
      if let percent, percents.last != percent { percents.append(percent) }
      try await Task.sleep(for: .milliseconds(20))
    }
    let image = try await store.image(name)
    let log = try? Files.read("\(directory.path)/images/.logs/\(name)")
    #expect(
      image.state == .ready,
      "\(image.state) \(String(decoding: log ?? [], as: UTF8.self).suffix(2000))")
    // What takes longest was seen on the way.
    for step in ["fetching Debian bookworm", "configuring", "installing the boot loader"] {
      #expect(steps.contains(step), "\(steps)")
    }
    #expect(steps.contains("installing \(desktop.rawValue)") == (desktop != .none))
    #expect(percents == percents.sorted() && percents.count >= 4, "\(percents)")
    return image
  }

  /// The boot sector is GRUB's, whose core lies before the one partition, which is active.
  private func checkBoot(_ path: String) throws {
    let disk = try FileDescriptor.open(path)
    var start = [UInt8](repeating: 0, count: 4096)
    let count = try start.withUnsafeMutableBytes { try disk.read(into: $0, offset: 0) }
    #expect(count == start.count)
    #expect(start[510..<512] == [0x55, 0xAA] && start[..<440].contains { $0 != 0 })
    #expect(start[..<512].firstRange(of: Array("GRUB".utf8)) != nil)
    #expect(start[512...].contains { $0 != 0 })
    let partitions = try directory.run("sfdisk --dump \(path)").output
    #expect(partitions.contains("start=        2048") && partitions.contains("bootable"))
  }

  private func check(_ desktop: ImageRecipe.Desktop, _ path: String) throws {
    let partition = "'\(path)?offset=1048576'"
    let (status, output) = try directory.run("e2fsck -fn \(partition) 2>&1")
    #expect(status == 0, "\(output)")
    func ask(_ command: String) throws -> String {
      try directory.run("debugfs -R '\(command)' \(partition) 2>/dev/null").output
    }
    func isThere(_ file: String) throws -> Bool { try ask("stat \(file)").contains("Inode:") }
    func isProgram(_ file: String) throws -> Bool {
      try ask("stat \(file)").contains("Mode:  0755")
    }
    let uuid = try directory.run("blkid -p -O 1048576 -s UUID -o value \(path)").output
      .trimmingCharacters(in: .whitespacesAndNewlines)
    #expect(uuid.count == 36)
    #expect(try ask("cat /etc/fstab") == "UUID=\(uuid) / ext4 errors=remount-ro,discard 0 1\n")
    let menu = try ask("cat /boot/grub/grub.cfg")
    #expect(menu.contains("--fs-uuid \(uuid)") && menu.contains("root=UUID=\(uuid)"))
    for file in ["/vmlinuz", "/initrd.img", "/boot/grub/i386-pc/core.img"] {
      #expect(try isThere(file), "\(file)")
    }
    #expect(try ask("cat /etc/machine-id").isEmpty, "every clone finds its own")
    #expect(try !isThere("/usr/sbin/policy-rc.d"), "services start")
    #expect(try ask("ls /tmp").split(separator: "\n").count <= 2)
    #expect(try isProgram("/usr/sbin/qemu-ga"))
    #expect(try isThere("/usr/lib/udev/rules.d/60-qemu-guest-agent.rules"))
    #expect(
      try isThere("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"))
    guard desktop != .none else {
      let getty = "/etc/systemd/system/getty@tty1.service.d/autologin.conf"
      #expect(try ask("cat \(getty)").contains("--autologin user"))
      #expect(try !isThere("/usr/bin/spice-vdagentd") && !isThere("/usr/bin/follow-monitor"))
      return
    }
    #expect(try isProgram("/usr/sbin/spice-vdagentd") && isProgram("/usr/bin/spice-vdagent"))
    #expect(try ask("cat /etc/lightdm/lightdm.conf.d/carrel.conf").contains("user-session=lxqt"))
    #expect(try isThere("/usr/share/xsessions/lxqt.desktop"))
    #expect(try isProgram("/usr/bin/follow-monitor") && isProgram("/usr/bin/xrandr"))
    try directory.write(Array(try ask("cat /usr/bin/follow-monitor").utf8), to: "follow-monitor")
    #expect(try directory.run("sh -n follow-monitor").status == 0)
    try checkFollowing(path)
  }

  /// The image's own udev takes the rule for a change of the monitor, and for nothing else; there
  /// is no such device here, so that another stands for it.
  private func checkFollowing(_ path: String) throws {
    let script = """
      cd \(directory.path) && mkdir -p root
      loop=$(losetup --find --show --read-only --offset 1048576 \(path))
      trap 'umount -R root; losetup -d $loop' EXIT
      mount -o ro,noload $loop root && mount -t proc proc root/proc && mount --rbind /sys root/sys
      for place in run tmp; do mount -t tmpfs tmpfs root/$place; done
      chroot root systemd-analyze verify /etc/systemd/system/follow-monitor.service
      echo "unit: $?"
      try() { chroot root udevadm test --action=$1 /sys/class/mem/null; echo "as is"; }
      try change
      mkdir -p root/run/udev/rules.d
      echo 'SUBSYSTEM=="mem", ENV{HOTPLUG}="1"' >root/run/udev/rules.d/79-hotplug.rules
      sed s/drm/mem/ root/etc/udev/rules.d/80-follow-monitor.rules \
        >root/run/udev/rules.d/81-follow-monitor.rules
      try add; try change
      """
    try directory.write(Array(script.utf8), to: "follow.sh")
    let output = try directory.run("unshare -m bash follow.sh 2>&1").output
    #expect(output.contains("unit: 0"), "\(output)")
    let tries = output.components(separatedBy: "as is")
    try #require(tries.count == 4, "\(output)")
    let wanted = "run: '/bin/systemctl --no-block restart follow-monitor.service'"
    #expect(tries[..<3].map { $0.contains(wanted) } == [false, false, true], "\(output)")
    #expect(!output.contains("follow-monitor.rules:1 Invalid"), "\(output)")
  }
}
